//! Writes a source file anew with all its changes in it, each behind a switch.

use std::collections::BTreeSet;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::Result;

/// A change of a file: other text in one place.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) id: usize,
    pub(super) is_body: bool,
    /// In bytes.
    pub(super) span: Range<usize>,
    pub(super) replacement: String,
}

/// A file with its changes in it, and those that no switch can make: in what is computed when the program is compiled.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    pub(super) text: String,
    pub(super) constant: BTreeSet<usize>,
}

/// What can be computed in two ways, one of which is chosen when the program runs.
#[derive(Debug)]
struct Unit {
    span: Range<usize>,
    shape: Shape,
    changes: Vec<Change>,
    /// Units inside this one.
    inner: Vec<Unit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    /// All between the braces of a function.
    Body,
    /// An expression that ends like a block: no parentheses, or it would be taken for the arguments of a call.
    Block,
    Other,
}

/// Puts all changes into a file. A unit is written once for each of its changes, as it is in the file but for that one, and once
/// with the changes of what is inside it: the text grows with the depth, not with the number of combinations.
pub(super) fn rewrite(text: &str, changes: &[Change]) -> Result<Rewritten> {
    let mut places = Places::default();
    places.visit_file(&syn::parse_file(text)?);
    // The smallest first.
    places.found.sort_by_key(|(span, shape)| (span.len(), *shape != Shape::Other, *shape == Shape::Body));
    let mut units: Vec<Unit> = Vec::new();
    let mut rewritten = Rewritten::default();
    for change in changes {
        let holds = |(span, shape): &&(Range<usize>, Shape)| {
            span.start <= change.span.start && change.span.end <= span.end && change.is_body == (*shape == Shape::Body)
        };
        match places.found.iter().find(holds) {
            Some((span, shape)) => add(&mut units, span, *shape, change.clone()),
            None => drop(rewritten.constant.insert(change.id)),
        }
    }
    rewritten.text = render(text, 0..text.len(), &nest(units));
    Ok(rewritten)
}

fn add(units: &mut Vec<Unit>, span: &Range<usize>, shape: Shape, change: Change) {
    match units.iter_mut().find(|unit| unit.span == *span && unit.shape == shape) {
        Some(unit) => unit.changes.push(change),
        None => units.push(Unit { span: span.clone(), shape, changes: vec![change], inner: Vec::new() }),
    }
}

/// Puts each unit into the one around it.
fn nest(mut units: Vec<Unit>) -> Vec<Unit> {
    // From the front; of those that begin together, the outer one first.
    units.sort_by_key(|unit| (unit.span.start, usize::MAX - unit.span.end, unit.shape));
    let mut outermost: Vec<Unit> = Vec::new();
    for unit in units {
        let mut list = &mut outermost;
        while list.last().is_some_and(|last| unit.span.end <= last.span.end) {
            list = &mut list.last_mut().expect("it was just looked at").inner;
        }
        list.push(unit);
    }
    outermost
}

/// The text of a range with the units in it.
fn render(text: &str, range: Range<usize>, units: &[Unit]) -> String {
    let (mut out, mut at) = (String::new(), range.start);
    for unit in units {
        out += &text[at..unit.span.start];
        out += &unit.render(text);
        at = unit.span.end;
    }
    out + &text[at..range.end]
}

impl Unit {
    fn render(&self, text: &str) -> String {
        let mut out = String::new();
        for Change { id, span, replacement, .. } in &self.changes {
            let (before, behind) = (&text[self.span.start..span.start], &text[span.end..self.span.end]);
            // The line break ends a comment.
            let changed = format!("{before}{replacement}{behind}\n");
            out += &format!("if crate::mutant::is({id}) {{{}{changed}{}}} else ", begin(*id), end(*id));
        }
        out += &format!("{{{}\n}}", render(text, self.span.clone(), &self.inner));
        if self.shape == Shape::Other { format!("({out})") } else { out }
    }
}

fn begin(id: usize) -> String {
    format!("/*<{id}*/")
}

fn end(id: usize) -> String {
    format!("/*{id}>*/")
}

/// The changes that an error in a range of a rewritten file may be due to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Blame {
    /// Those that the range touches.
    pub(super) touched: BTreeSet<usize>,
    /// Those that the expression in which it is chooses from.
    pub(super) asked: BTreeSet<usize>,
}

pub(super) fn blamed(text: &str, error: &Range<usize>) -> Blame {
    let mut blame = Blame::default();
    for (at, mark) in text.match_indices("crate::mutant::is(") {
        let digits: String = text[at + mark.len()..].chars().take_while(char::is_ascii_digit).collect();
        let Ok(id) = digits.parse::<usize>() else { continue };
        let Some(to) = text[at..].find(&end(id)).map(|to| at + to) else { continue };
        if at < error.end && error.start < to {
            let inside = text[at..to].find(&begin(id)).is_some_and(|from| error.start >= at + from);
            (if inside { &mut blame.touched } else { &mut blame.asked }).insert(id);
        }
    }
    blame
}

/// All places of a file whose value may be chosen when the program runs.
#[derive(Default)]
struct Places {
    found: Vec<(Range<usize>, Shape)>,
}

impl Places {
    fn body(&mut self, sig: &syn::Signature, block: &syn::Block) {
        // What is constant can not look at the switch.
        if sig.constness.is_some() {
            return;
        }
        let span = block.span().byte_range();
        self.found.push((span.start + 1..span.end - 1, Shape::Body));
        visit::visit_block(self, block);
    }
}

impl<'ast> Visit<'ast> for Places {
    fn visit_expr(&mut self, expr: &'ast syn::Expr) {
        use syn::Expr::{Block, Const, ForLoop, If, Let, Loop, Match, While};
        if matches!(expr, Const(_)) {
            return;
        }
        // A `let` is not a value.
        if !matches!(expr, Let(_)) {
            let is_block = matches!(expr, Block(_) | ForLoop(_) | If(_) | Loop(_) | Match(_) | While(_));
            self.found.push((expr.span().byte_range(), if is_block { Shape::Block } else { Shape::Other }));
        }
        visit::visit_expr(self, expr);
    }

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(&item.sig, block);
        }
    }

    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes `old` at its first place to `new`.
    fn change(text: &str, id: usize, old: &str, new: &str) -> Change {
        let start = text.find(old).unwrap();
        Change { id, is_body: false, span: start..start + old.len(), replacement: new.into() }
    }

    /// What is between the braces of the function, without the marks and in one line.
    fn shown(text: &str, changes: &[Change]) -> String {
        let mut text = rewrite(text, changes).unwrap().text;
        for change in changes {
            text = text.replace(&begin(change.id), "").replace(&end(change.id), "");
        }
        syn::parse_file(&text).unwrap();
        text.replace("crate::mutant::is", "is").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_operator_is_chosen_with_both_of_its_sides() {
        let text = "fn f() { g(a < b) }";
        let changes = [change(text, 1, "<", "=="), change(text, 2, "<", ">")];
        let expected = "fn f() { g((if is(1) {a == b } else if is(2) {a > b } else {a < b })) }";
        assert_eq!(shown(text, &changes), expected);
    }

    #[test]
    fn what_is_changed_inside_and_outside_is_nested_in_the_unchanged_way_only() {
        let text = "fn f() { a && !b }";
        let changes = [change(text, 1, "&&", "||"), change(text, 2, "!", "")];
        let expected = "fn f() { (if is(1) {a || !b } else {a && (if is(2) {b } else {!b }) }) }";
        assert_eq!(shown(text, &changes), expected);
    }

    #[test]
    fn a_body_is_chosen_as_a_whole_also_if_it_is_one_expression() {
        let text = "fn f() -> bool { a == b }";
        let body = Change { is_body: true, ..change(text, 1, "a == b", "true") };
        let changes = [body, change(text, 2, "==", "!=")];
        let expected = "fn f() -> bool {if is(1) { true } else { (if is(2) {a != b } else {a == b }) }}";
        assert_eq!(shown(text, &changes), expected);
    }

    #[test]
    fn an_arm_that_goes_is_chosen_with_its_match_which_may_stand_as_a_statement() {
        let text = "fn f() { match a { 1 => b(), _ => {} } c() }";
        let expected = "fn f() { if is(1) {match a { _ => {} } } else {match a { 1 => b(), _ => {} } } c() }";
        assert_eq!(shown(text, &[change(text, 1, "1 => b(),", "")]), expected);
    }

    #[test]
    fn a_guard_is_an_expression_like_others() {
        let text = "fn f() { match a { b if c(b) => 1, _ => 2 } }";
        let expected = "fn f() { match a { b if (if is(7) {true } else {c(b) }) => 1, _ => 2 } }";
        assert_eq!(shown(text, &[change(text, 7, "c(b)", "true")]), expected);
    }

    #[test]
    fn what_is_constant_can_not_be_chosen() {
        let text = "const A: usize = 1 << 2; const fn f() -> bool { a == b } fn g() { [0; 1 + 1] }";
        let body = Change { is_body: true, ..change(text, 2, "a == b", "true") };
        let changes = [change(text, 1, "<<", ">>"), body, change(text, 3, "==", "!=")];
        let rewritten = rewrite(text, &changes).unwrap();
        assert_eq!(rewritten.text, text);
        assert_eq!(rewritten.constant, BTreeSet::from([1, 2, 3]));
    }

    #[test]
    fn a_comment_at_the_end_does_not_swallow_the_rest() {
        let text = "fn f() {\n    a < b // why\n}";
        let body = Change { is_body: true, ..change(text, 1, "a < b", "true") };
        syn::parse_file(&rewrite(text, &[body, change(text, 2, "<", ">")]).unwrap().text).unwrap();
    }

    #[test]
    fn an_error_is_blamed_on_what_it_touches() {
        let text = "fn f() { a && !b }";
        let text = rewrite(text, &[change(text, 1, "&&", "||"), change(text, 2, "!", "")]).unwrap().text;
        let at = |what: &str| text.find(what).map(|at| at..at + 1).unwrap();
        assert_eq!(blamed(&text, &at("||")).touched, BTreeSet::from([1]));
        assert_eq!(blamed(&text, &at("b\n/*2>")).touched, BTreeSet::from([2]));
        let whole = blamed(&text, &(0..text.len()));
        assert_eq!((whole.touched, whole.asked), (BTreeSet::new(), BTreeSet::from([1, 2])));
        assert_eq!(blamed(&text, &at("fn")), Blame::default());
    }
}
