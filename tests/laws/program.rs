//! The language of the laws: programs, how they are generated, and how they are named.

use std::collections::BTreeSet;

use proptest::prelude::*;

/// Names a part of a program. Parts that a law puts around a program have names from [`HIDDEN`] on, and nobody sees them.
pub(crate) type Id = u16;
pub(crate) const HIDDEN: Id = 1000;
/// The scope around the whole program, which the driver cancels.
pub(crate) const ROOT: Id = 0;

/// A program. Each part is run at most once. What a number stands for before it is [named](P::named) is an index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum P {
    /// `emit k`.
    Emit(Id),
    /// `sleep d`, in milliseconds.
    Sleep(Id, u64),
    /// A suspension that is due at once.
    Yield(Id),
    Never,
    Fail,
    Panic,
    Seq(Vec<P>),
    /// `mask(x. P)`, an owned shield.
    Mask(Id, Box<P>),
    /// `poll x P`, with the shield that it names.
    Expose(Id, Id, Box<P>),
    /// `scope(s. P)`, perhaps with a timeout.
    Scope(Id, Option<u64>, Box<P>),
    /// Cancels a scope or nursery, before, in or after its run.
    Cancel(Id),
    CancelChild(Id),
    Catch(Id, Box<P>),
    OnCancel(Id, Box<P>, Box<P>),
    Finally(Id, Box<P>, Box<P>),
    Nursery(Id, Box<P>),
    /// A child of the nursery that it names.
    Spawn(Id, Id, Box<P>),
    /// Drops what is inside if it has not ended in time.
    DropAfter(Id, u64, Box<P>),
}

impl P {
    pub(crate) fn seq(parts: impl IntoIterator<Item = Self>) -> Self {
        Self::Seq(parts.into_iter().collect())
    }

    /// Names all parts in the order in which they are written, and what they refer to: an index counts the shields (scopes, nurseries)
    /// around, innermost first, and goes on with all others, so that foreign ones come up, too. No two lengths are the
    /// same, so that nothing is due at one moment with something else.
    pub(crate) fn named(mut self) -> Self {
        let mut names = Names::default();
        names.list(&mut self);
        names.bind(&mut self, &mut Around::default());
        self
    }

    pub(crate) fn parts(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Emit(_) | Self::Sleep(..) | Self::Yield(_) | Self::Never | Self::Fail | Self::Panic => vec![],
            Self::Cancel(_) | Self::CancelChild(_) => vec![],
            Self::Seq(parts) => parts.iter_mut().collect(),
            Self::Mask(_, p) | Self::Expose(_, _, p) | Self::Scope(_, _, p) | Self::Catch(_, p) => vec![p],
            Self::Nursery(_, p) | Self::Spawn(_, _, p) | Self::DropAfter(_, _, p) => vec![p],
            Self::OnCancel(_, p, f) | Self::Finally(_, p, f) => vec![p, f],
        }
    }

    /// All parts of a kind, by name.
    pub(crate) fn all(&self, kind: impl Fn(&Self) -> Option<Id>) -> BTreeSet<Id> {
        let (mut found, mut next) = (BTreeSet::new(), vec![self.clone()]);
        while let Some(mut p) = next.pop() {
            found.extend(kind(&p));
            next.extend(p.parts().into_iter().map(|part| part.clone()));
        }
        found
    }
}

/// What there is to refer to.
#[derive(Default)]
struct Names {
    next: Id,
    masks: Vec<Id>,
    scopes: Vec<Id>,
    nurseries: Vec<Id>,
    children: Vec<Id>,
}

#[derive(Clone, Default)]
struct Around {
    masks: Vec<Id>,
    scopes: Vec<Id>,
    nurseries: Vec<Id>,
}

impl Names {
    fn list(&mut self, p: &mut P) {
        self.next += 1;
        let here = self.next;
        let length = |coarse: u64| (1 + coarse) * 100_000 + u64::from(here) * 7_919 % 99_991;
        match p {
            P::Emit(id) | P::Yield(id) | P::Catch(id, _) | P::OnCancel(id, ..) | P::Finally(id, ..) => *id = here,
            P::Expose(id, ..) => *id = here,
            P::Sleep(id, ms) | P::DropAfter(id, ms, _) => (*id, *ms) = (here, length(*ms)),
            P::Mask(id, _) => {
                *id = here;
                self.masks.push(here);
            }
            P::Scope(id, timeout, _) => {
                *id = here;
                *timeout = timeout.map(length);
                self.scopes.push(here);
            }
            P::Nursery(id, _) => {
                *id = here;
                self.scopes.push(here);
                self.nurseries.push(here);
            }
            P::Spawn(id, ..) => {
                *id = here;
                self.children.push(here);
            }
            P::Never | P::Fail | P::Panic | P::Seq(_) | P::Cancel(_) | P::CancelChild(_) => {}
        }
        p.parts().into_iter().for_each(|part| self.list(part));
    }

    fn bind(&self, p: &mut P, around: &mut Around) {
        let pick = |index: Id, near: &[Id], all: &[Id], else_: Id| {
            let list = near.iter().rev().chain(all).copied().collect::<Vec<_>>();
            list.get(usize::from(index)).copied().unwrap_or(else_)
        };
        match p {
            P::Expose(_, shield, _) => *shield = pick(*shield, &around.masks, &self.masks, Id::MAX),
            P::Cancel(scope) => *scope = pick(*scope, &around.scopes, &self.scopes, ROOT),
            P::CancelChild(child) => *child = pick(*child, &self.children, &[], Id::MAX),
            P::Spawn(_, nursery, _) => *nursery = pick(*nursery, &around.nurseries, &[], Id::MAX),
            _ => {}
        }
        let mut inner = around.clone();
        match p {
            P::Mask(id, _) => inner.masks.push(*id),
            P::Scope(id, ..) => inner.scopes.push(*id),
            P::Nursery(id, _) => {
                inner.scopes.push(*id);
                inner.nurseries.push(*id);
            }
            _ => {}
        }
        p.parts().into_iter().for_each(|part| self.bind(part, &mut inner));
    }
}

/// What a generated program may do beside the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grammar {
    /// `fail` and `panic`.
    pub(crate) failures: bool,
    pub(crate) drops: bool,
    pub(crate) tasks: bool,
    pub(crate) never: bool,
    /// Cancels by the program itself, and timeouts.
    pub(crate) cancels: bool,
    /// Shields, and finalizers.
    pub(crate) masks: bool,
}

pub(crate) const ALL: Grammar =
    Grammar { failures: true, drops: true, tasks: true, never: true, cancels: true, masks: true };
/// Programs that end by themselves, with a value.
pub(crate) const CALM: Grammar = Grammar { failures: false, never: false, ..ALL };

fn leaf(grammar: Grammar) -> BoxedStrategy<P> {
    let mut leaves = vec![
        (6, (0..4_u64).prop_map(|d| P::Sleep(0, d)).boxed()),
        (2, Just(P::Emit(0)).boxed()),
        (2, Just(P::Yield(0)).boxed()),
    ];
    if grammar.cancels {
        leaves.push((3, (0..4_u16).prop_map(P::Cancel).boxed()));
    }
    if grammar.failures {
        leaves.push((1, Just(P::Fail).boxed()));
        leaves.push((1, Just(P::Panic).boxed()));
    }
    if grammar.tasks && grammar.cancels {
        leaves.push((1, (0..3_u16).prop_map(P::CancelChild).boxed()));
    }
    if grammar.never {
        leaves.push((1, Just(P::Never).boxed()));
    }
    proptest::strategy::Union::new_weighted(leaves).boxed()
}

/// Programs of at most about `size` parts, not named yet.
pub(crate) fn raw(grammar: Grammar, size: u32) -> BoxedStrategy<P> {
    // What a finalizer does has no way to fail.
    let calm = leaf(Grammar { failures: false, never: false, ..grammar });
    let finalizer = proptest::collection::vec(calm, 1..3).prop_map(P::Seq).boxed();
    leaf(grammar)
        .prop_recursive(6, size, 3, move |inner| {
            let part = || inner.clone().prop_map(Box::new);
            let clean = || finalizer.clone().prop_map(Box::new);
            let timeout = match grammar.cancels {
                true => proptest::option::of(0..4_u64).boxed(),
                false => Just(None).boxed(),
            };
            let mut forms = vec![
                (6, proptest::collection::vec(inner.clone(), 2..4).prop_map(P::Seq).boxed()),
                (3, (timeout, part()).prop_map(|(t, p)| P::Scope(0, t, p)).boxed()),
                (1, part().prop_map(|p| P::Catch(0, p)).boxed()),
            ];
            if grammar.masks {
                forms.push((3, part().prop_map(|p| P::Mask(0, p)).boxed()));
                forms.push((3, (0..4_u16, part()).prop_map(|(x, p)| P::Expose(0, x, p)).boxed()));
                forms.push((1, (part(), clean()).prop_map(|(p, f)| P::OnCancel(0, p, f)).boxed()));
                forms.push((1, (part(), clean()).prop_map(|(p, f)| P::Finally(0, p, f)).boxed()));
            }
            if grammar.drops {
                forms.push((1, (0..4_u64, part()).prop_map(|(d, p)| P::DropAfter(0, d, p)).boxed()));
            }
            if grammar.tasks {
                // Mostly with a child: one without is a scope.
                let family = (part(), inner.clone());
                let family = family.prop_map(|(child, body)| P::seq([P::Spawn(0, 0, child), body]));
                forms.push((4, family.prop_map(|p| P::Nursery(0, Box::new(p))).boxed()));
                forms.push((1, part().prop_map(|p| P::Nursery(0, p)).boxed()));
                forms.push((2, (0..2_u16, part()).prop_map(|(n, p)| P::Spawn(0, n, p)).boxed()));
            }
            proptest::strategy::Union::new_weighted(forms).boxed()
        })
        .boxed()
}

/// Named programs.
pub(crate) fn programs(grammar: Grammar, size: u32) -> impl Strategy<Value = P> {
    raw(grammar, size).prop_map(P::named)
}
