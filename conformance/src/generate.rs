//! Random programs: how one follows from a seed and a number.
//!
//! Proptest makes trees of operations whose references are plain numbers; then each reference is bound to something that is there.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::{BoxedStrategy, Union, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use self::Kind::{LocalNursery, Nursery, Scope, Task};
use crate::program::{Block, Op, Program, ShieldKind, What};

/// What a mix has more of than the others.
#[derive(Clone, Copy, Debug)]
struct Mix {
    requests: u32,
    regions: u32,
    shields: u32,
    finalizers: u32,
    nurseries: u32,
    failures: u32,
    /// Of a hundred times, so many are 0: now.
    now: u32,
}

const EVEN: Mix = Mix { requests: 4, regions: 4, shields: 2, finalizers: 2, nurseries: 6, failures: 1, now: 8 };

/// Programs take them in turn.
const MIXES: [Mix; 5] = [
    EVEN,
    Mix { requests: 8, shields: 5, now: 2, ..EVEN },
    Mix { nurseries: 12, failures: 4, ..EVEN },
    Mix { finalizers: 8, regions: 6, requests: 6, ..EVEN },
    Mix { regions: 10, requests: 6, shields: 4, nurseries: 3, now: 20, ..EVEN },
];

const EVENTS: usize = 3;
/// So long that two timers of one program rarely fall on one instant.
const MS_MAX: u64 = 20_000;

/// The program with that number.
pub(crate) fn program(seed: u64, index: u64) -> Result<Program, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&index.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let tree = strategy(index).new_tree(&mut TestRunner::new_with_rng(Config::default(), rng));
    tree.map(|tree| tree.current()).map_err(|reason| reason.to_string())
}

fn strategy(index: u64) -> BoxedStrategy<Program> {
    let mixes = MIXES.len() as u64;
    let mix = MIXES[usize::try_from(index % mixes).expect("it is below the number of mixes")];
    // Regions inside regions, fewer of them the deeper it gets; to shrink is to become a leaf.
    let deeper = |inner, regions| {
        let region = region(mix, &vec(inner, 0..5).boxed());
        prop_oneof![10 - regions => leaf(mix), regions => region].boxed()
    };
    let op = [3, 4, 5, 6, 7].into_iter().fold(leaf(mix), deeper);
    let block = vec(op, 1..5).boxed();
    // Blocks side by side, so that one that waits for ever does not end the program for all.
    let children = (vec(late(block.clone()), 0..4), vec(meddler(mix), 0..3));
    (children, block).prop_map(|((children, meddlers), main)| bind(side_by_side(children, meddlers, main))).boxed()
}

/// A block that asks this and that of others while they run.
fn meddler(mix: Mix) -> BoxedStrategy<Block> {
    // So that it is rarely what is around.
    let target = || 600..1_000_u32;
    let request = prop_oneof![
        2 => target().prop_map(|target| What::Cancel { target }),
        4 => (target(), any::<bool>()).prop_map(|(target, on)| What::Shield { target, on }),
        2 => (target(), proptest::option::weighted(0.8, ms(mix))).prop_map(|(target, ms)| What::Deadline { target, ms }),
        1 => target().prop_map(|target| What::Peek { target }),
    ];
    vec((1..MS_MAX / 3, request), 1..6)
        .prop_map(|all| all.into_iter().flat_map(|(ms, what)| [op(What::Sleep { ms }), op(what)]).collect())
        .boxed()
}

/// A block that mostly begins with a sleep: what begins at one instant is mostly a race.
fn late(block: BoxedStrategy<Block>) -> BoxedStrategy<Block> {
    let sleep = proptest::option::weighted(0.8, 1..MS_MAX);
    (sleep, block)
        .prop_map(|(sleep, block)| sleep.map(|ms| op(What::Sleep { ms })).into_iter().chain(block).collect())
        .boxed()
}

/// Those that meddle are shielded, and so there to the end.
fn side_by_side(children: Vec<Block>, meddlers: Vec<Block>, main: Block) -> Block {
    if children.is_empty() && meddlers.is_empty() {
        return main;
    }
    let child = |shield| move |body| op(What::Spawn { nursery: 0, shield, body });
    let body =
        children.into_iter().map(child(false)).chain(meddlers.into_iter().map(child(true))).chain(main).collect();
    vec![op(What::Nursery { timeout: None, shield: false, local: false, body })]
}

fn ms(mix: Mix) -> impl Strategy<Value = u64> + Clone {
    prop_oneof![mix.now => Just(0), 100 - mix.now => 1..MS_MAX]
}

fn op(what: What) -> Op {
    Op { id: 0, what }
}

fn any_id() -> std::ops::Range<u32> {
    0..1000
}

fn leaf(mix: Mix) -> BoxedStrategy<Op> {
    let event = 0..EVENTS;
    let target = any_id();
    let leaves: Vec<(u32, BoxedStrategy<What>)> = vec![
        (8, (1..MS_MAX).prop_map(|ms| What::Sleep { ms }).boxed()),
        (2, Just(What::Checkpoint).boxed()),
        (1, event.clone().prop_map(|event| What::Wait { event }).boxed()),
        (1, target.clone().prop_map(|task| What::Join { task }).boxed()),
        (1, Just(What::Park).boxed()),
        (1, Just(What::Yield).boxed()),
        (1, Just(What::Cancelled).boxed()),
        (2, event.prop_map(|event| What::Set { event }).boxed()),
        (mix.requests, target.clone().prop_map(|target| What::Cancel { target }).boxed()),
        (mix.requests, (target.clone(), any::<bool>()).prop_map(|(target, on)| What::Shield { target, on }).boxed()),
        (
            mix.requests.div_ceil(2),
            (target.clone(), proptest::option::weighted(0.8, ms(mix)))
                .prop_map(|(target, ms)| What::Deadline { target, ms })
                .boxed(),
        ),
        (2, Just(What::Look).boxed()),
        (1, target.prop_map(|target| What::Peek { target }).boxed()),
        (mix.failures, Just(What::Fail).boxed()),
    ];
    Union::new_weighted(leaves).prop_map(op).boxed()
}

fn region(mix: Mix, block: &BoxedStrategy<Block>) -> BoxedStrategy<Op> {
    let one = || block.clone();
    let two = || (block.clone(), block.clone());
    let three = || (block.clone(), block.clone(), block.clone());
    let timeout = || proptest::option::weighted(0.4, ms(mix));
    let kind = prop_oneof![
        Just(ShieldKind::Owned),
        Just(ShieldKind::Scoped),
        Just(ShieldKind::Local),
        Just(ShieldKind::Scope)
    ];
    let rarely = || proptest::bool::weighted(0.15);
    // At a time of the program, or so long after the beginning.
    let limit =
        (proptest::bool::weighted(0.2), timeout()).prop_map(|(is_at, ms)| if is_at { (ms, None) } else { (None, ms) });
    let regions: Vec<(u32, BoxedStrategy<What>)> = vec![
        (
            mix.regions,
            (limit, rarely(), one())
                .prop_map(|((deadline, timeout), shield, body)| What::Scope { deadline, timeout, shield, body })
                .boxed(),
        ),
        (1, (ms(mix), one()).prop_map(|(timeout, body)| What::FailAfter { timeout, body }).boxed()),
        (1, (ms(mix), one()).prop_map(|(timeout, body)| What::MoveOnAfter { timeout, body }).boxed()),
        (mix.shields, (kind, one()).prop_map(|(kind, body)| What::Shielded { kind, body }).boxed()),
        (
            mix.shields.div_ceil(2),
            three().prop_map(|(before, exposed, after)| What::ShieldWith { before, exposed, after }).boxed(),
        ),
        (mix.shields, (timeout(), one(), one()).prop_map(covered).boxed()),
        (2 * mix.failures, one().prop_map(|body| What::Try { body }).boxed()),
        (1, one().prop_map(|body| What::Catch { body }).boxed()),
        (mix.finalizers, two().prop_map(|(body, then)| What::Finally { body, then }).boxed()),
        (mix.finalizers.div_ceil(2), two().prop_map(|(body, then)| What::OnCancel { body, then }).boxed()),
        (
            mix.finalizers.div_ceil(2),
            three().prop_map(|(before, body, after)| What::Bracket { before, body, after }).boxed(),
        ),
        (
            mix.nurseries,
            (timeout(), rarely(), rarely(), one())
                .prop_map(|(timeout, shield, local, body)| What::Nursery { timeout, shield, local, body })
                .boxed(),
        ),
        (
            2 * mix.nurseries,
            (any_id(), rarely(), late(one()))
                .prop_map(|(nursery, shield, body)| What::Spawn { nursery, shield, body })
                .boxed(),
        ),
        (
            mix.nurseries.div_ceil(3),
            (any_id(), proptest::bool::weighted(0.9), two())
                .prop_map(|(nursery, starts, (before, after))| What::Start { nursery, starts, before, after })
                .boxed(),
        ),
    ];
    Union::new_weighted(regions).prop_map(op).boxed()
}

/// Code that has caught a cancel, raises a shield around itself, and lowers it at its end.
fn covered((timeout, body, rest): (Option<u64>, Block, Block)) -> What {
    let shield = |on| op(What::Shield { target: 0, on });
    let caught = [op(What::Catch { body }), shield(true)];
    let end = [shield(false), op(What::Checkpoint)];
    let body = caught.into_iter().chain(rest).chain(end).collect();
    What::Scope { deadline: None, timeout, shield: false, body }
}

/// What there is to refer to.
#[derive(Default)]
struct Names {
    next: u32,
    places: Vec<Place>,
}

/// What can be named, and what kind it is.
#[derive(Clone, Copy)]
struct Place {
    id: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scope,
    Task,
    Nursery,
    LocalNursery,
}

/// Numbers the operations, and binds each reference.
fn bind(mut body: Block) -> Program {
    let mut names = Names { next: 1, ..Names::default() };
    number(&mut body, &mut names);
    if !names.places.iter().any(|place| matches!(place.kind, Nursery | LocalNursery)) {
        // Then nothing can be spawned, either.
        names.places.retain(|place| place.kind != Task);
    }
    resolve(&mut body, &names, &mut Vec::new());
    Program { events: EVENTS, body }
}

fn number(block: &mut Block, names: &mut Names) {
    for op in block {
        op.id = names.next;
        names.next += 1;
        names.places.extend(place(op));
        op.what.blocks().into_iter().for_each(|inner| number(inner, names));
    }
}

fn place(op: &Op) -> Option<Place> {
    let kinds = [
        (matches!(op.what, What::Scope { .. }), Scope),
        (matches!(op.what, What::Spawn { .. }), Task),
        (matches!(op.what, What::Nursery { local: false, .. }), Nursery),
        (matches!(op.what, What::Nursery { local: true, .. }), LocalNursery),
    ];
    kinds.into_iter().find_map(|(is_it, kind)| is_it.then_some(Place { id: op.id, kind }))
}

/// Binds what an operation refers to; false if there is nothing of the kind.
fn bind_one(what: &mut What, names: &Names, around: &[Place]) -> bool {
    if let What::Peek { target } = what {
        return pick(names, around, target, HALF, &[Scope]);
    }
    if let What::Shield { target, .. } | What::Deadline { target, .. } = what {
        return pick(names, around, target, HALF, &[Scope, Nursery, LocalNursery]);
    }
    if let What::Cancel { target } = what {
        return pick(names, around, target, HALF, &[Scope, Nursery, LocalNursery, Task]);
    }
    if let What::Join { task } = what {
        return pick(names, &[], task, HALF, &[Task]);
    }
    if let What::Spawn { nursery, shield, .. } = what {
        let bound = pick(names, around, nursery, MOSTLY, &[Nursery, LocalNursery]);
        // The children of a local nursery have no options.
        *shield &= !names.places.iter().any(|place| place.kind == LocalNursery && place.id == *nursery);
        return bound;
    }
    if let What::Start { nursery, .. } = what {
        return pick(names, around, nursery, MOSTLY, &[Nursery]);
    }
    true
}

fn resolve(block: &mut Block, names: &Names, around: &mut Vec<Place>) {
    for op in block {
        if !bind_one(&mut op.what, names, around) {
            let body = op.what.blocks().into_iter().flat_map(std::mem::take).collect();
            op.what = What::Try { body };
        }
        let opened = place(op);
        around.extend(opened);
        op.what.blocks().into_iter().for_each(|inner| resolve(inner, names, around));
        around.truncate(around.len() - usize::from(opened.is_some()));
    }
}

/// Of a thousand references, so many are to the innermost that is around, and, together with those, to any that is around.
type Reach = (u32, u32);
const MOSTLY: Reach = (600, 850);
/// What was only named was mostly not running.
const HALF: Reach = (200, 600);

/// Binds one reference, by chance to something that is around, in this task or in those that it is nested in.
fn pick(names: &Names, around: &[Place], id: &mut u32, (innermost, near): Reach, kinds: &[Kind]) -> bool {
    let allowed = |places: &[Place]| -> Vec<u32> {
        places.iter().rev().filter(|place| kinds.contains(&place.kind)).map(|place| place.id).collect()
    };
    let mut found = allowed(around);
    if *id < innermost {
        found.truncate(1);
    }
    if *id >= near || found.is_empty() {
        found = allowed(&names.places);
    }
    if found.is_empty() {
        return false;
    }
    *id = found[*id as usize % found.len()];
    true
}
