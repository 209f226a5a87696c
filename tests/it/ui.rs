//! What the compiler says to wrong programs. The texts are checked in: read them as a newcomer would.

#[test]
fn wrong_programs_are_refused_with_words_that_help() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
