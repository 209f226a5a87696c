//! The expansion of both macros, on token streams that unit tests can build.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Error, LitBool, LitInt, LitStr, Result, Signature, Token, Visibility};

pub(crate) fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(item, |function| {
        let mut options = MainOptions::default();
        syn::meta::parser(|meta| options.set(&meta)).parse2(args)?;
        options.check()?;
        let calls = options.calls;
        Ok(function.wrap(
            &TokenStream::new(),
            &quote!(-> ::std::process::ExitCode),
            &quote!(::testudo::Runner::new() #calls .run_and_exit(__body())),
        ))
    })
}

pub(crate) fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(item, |function| {
        let mut start_paused = false;
        let options = syn::meta::parser(|meta| {
            if !meta.path.is_ident("start_paused") {
                return Err(meta.error("unknown option: expected `start_paused`"));
            }
            start_paused = value::<LitBool>(&meta)?.value;
            Ok(())
        });
        options.parse2(args)?;
        let name = &function.sig.ident;
        let options = quote!(::testudo::__private::TestOptions {
            name: ::core::stringify!(#name),
            start_paused: #start_paused,
        });
        let output = &function.sig.output;
        Ok(function.wrap(
            &quote!(#[::core::prelude::v1::test]),
            &quote!(#output),
            &quote!(::testudo::__private::run_test(#options, __body())),
        ))
    })
}

/// The options of `#[testudo::main]`, as the calls that they become on the runner.
#[derive(Default)]
struct MainOptions {
    calls: TokenStream,
    seen: Vec<String>,
    current_thread: bool,
    worker_threads: Option<Span>,
}

impl MainOptions {
    fn set(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        if self.seen.contains(&name) {
            return Err(meta.error(format!("`{name}` is given twice")));
        }
        let call = match name.as_str() {
            "flavor" => self.flavor(&value(meta)?)?,
            "worker_threads" => self.worker_threads(&value(meta)?)?,
            "shield_main" | "wait_for_tasks" => {
                let method = &meta.path;
                let on: LitBool = value(meta)?;
                quote!(.#method(#on))
            }
            _ => {
                return Err(meta.error(
                    "unknown option: expected `flavor`, `worker_threads`, `shield_main` or \
                     `wait_for_tasks`",
                ));
            }
        };
        self.calls.extend(call);
        self.seen.push(name);
        Ok(())
    }

    fn flavor(&mut self, value: &LitStr) -> Result<TokenStream> {
        match value.value().as_str() {
            "multi_thread" => Ok(TokenStream::new()),
            "current_thread" => {
                self.current_thread = true;
                Ok(quote!(.current_thread()))
            }
            _ => Err(Error::new(value.span(), "unknown flavor: expected \"multi_thread\" or \"current_thread\"")),
        }
    }

    fn worker_threads(&mut self, value: &LitInt) -> Result<TokenStream> {
        if value.base10_parse::<usize>()? == 0 {
            return Err(Error::new(value.span(), "a runtime needs at least 1 worker thread"));
        }
        self.worker_threads = Some(value.span());
        Ok(quote!(.worker_threads(#value)))
    }

    fn check(&self) -> Result<()> {
        match self.worker_threads {
            Some(span) if self.current_thread => {
                Err(Error::new(span, "`worker_threads` needs the flavor \"multi_thread\": \"current_thread\" has none"))
            }
            _ => Ok(()),
        }
    }
}

/// The value of an option; without one the error is at the name.
fn value<T: Parse>(meta: &ParseNestedMeta<'_>) -> Result<T> {
    if !meta.input.peek(Token![=]) {
        return Err(meta.error("this option needs a value: write `name = value`"));
    }
    meta.value()?.parse()
}

/// A function whose body is kept as it was written, so that the compiler judges it.
struct Function {
    attrs: Vec<Attribute>,
    vis: Visibility,
    sig: Signature,
    body: TokenStream,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        Ok(Self {
            attrs: input.call(Attribute::parse_outer)?,
            vis: input.parse()?,
            sig: input.parse()?,
            body: input.parse()?,
        })
    }
}

impl Function {
    fn check(&self) -> Result<()> {
        let sig = &self.sig;
        let refuse = |span, what| Err(Error::new(span, what));
        if sig.asyncness.is_none() {
            return refuse(sig.fn_token.span, "this function must be an `async fn`");
        }
        if !sig.inputs.is_empty() {
            return refuse(sig.inputs.span(), "this function can not have arguments");
        }
        if !sig.generics.params.is_empty() {
            return refuse(sig.generics.span(), "this function can not be generic");
        }
        Ok(())
    }

    /// A plain function of the same name, with the body in an inner `async fn __body()`.
    fn wrap(&self, attr: &TokenStream, output: &TokenStream, run: &TokenStream) -> TokenStream {
        let Self { attrs, vis, sig, body } = self;
        let (name, inner_output) = (&sig.ident, &sig.output);
        quote! {
            #(#attrs)*
            #attr
            #vis fn #name() #output {
                async fn __body() #inner_output #body
                #run
            }
        }
    }
}

/// Expands `item`; an error stands in place of the body, so that it is the only one.
fn expand(item: TokenStream, expansion: impl FnOnce(&Function) -> Result<TokenStream>) -> TokenStream {
    let function: Function = match syn::parse2(item) {
        Ok(function) => function,
        Err(error) => return error.to_compile_error(),
    };
    function.check().and_then(|()| expansion(&function)).unwrap_or_else(|error| {
        let (name, error) = (&function.sig.ident, error.to_compile_error());
        quote_spanned!(name.span()=> fn #name() { #error })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Macro = fn(TokenStream, TokenStream) -> TokenStream;

    #[track_caller]
    fn check(expand: Macro, args: &str, item: &str, expect: &str) {
        let tokens = |text: &str| text.parse::<TokenStream>().unwrap();
        let expanded = expand(tokens(args), tokens(item)).to_string();
        let expect = tokens(expect).to_string();
        assert!(expanded.contains(&expect), "no `{expect}` in:\n{expanded}");
    }

    #[test]
    fn main_becomes_a_plain_function_that_runs_the_body() {
        check(
            main,
            "",
            "/// Docs.\nasync fn main() -> Result<(), E> { work().await }",
            "#[doc = \" Docs.\"] fn main() -> ::std::process::ExitCode {
                async fn __body() -> Result<(), E> { work().await }
                ::testudo::Runner::new().run_and_exit(__body())
            }",
        );
    }

    #[test]
    fn options_of_main_become_calls_on_the_runner() {
        check(
            main,
            "worker_threads = 3, shield_main = true, wait_for_tasks = false",
            "async fn main() {}",
            "Runner::new().worker_threads(3).shield_main(true).wait_for_tasks(false)",
        );
        check(main, "flavor = \"multi_thread\"", "async fn main() {}", "Runner::new().run_and_exit");
        check(main, "flavor = \"current_thread\"", "async fn main() {}", "Runner::new().current_thread()");
    }

    #[test]
    fn test_keeps_attributes_name_and_output() {
        check(
            test,
            "start_paused = true",
            "#[should_panic] async fn it_works() -> Result<(), E> { Ok(()) }",
            "#[should_panic] #[::core::prelude::v1::test] fn it_works() -> Result<(), E> {
                async fn __body() -> Result<(), E> { Ok(()) }
                ::testudo::__private::run_test(
                    ::testudo::__private::TestOptions {
                        name: ::core::stringify!(it_works),
                        start_paused: true,
                    },
                    __body()
                )
            }",
        );
    }

    #[test]
    fn misuse_is_explained() {
        let plain = "async fn main() {}";
        for (args, item, message) in [
            ("", "fn main() {}", "this function must be an `async fn`"),
            ("", "async fn main(a: u8) {}", "this function can not have arguments"),
            ("", "async fn main<T>() {}", "this function can not be generic"),
            ("color = 1", plain, "unknown option: expected `flavor`"),
            ("flavor = \"x\"", plain, "unknown flavor: expected"),
            ("flavor = 1", plain, "expected string literal"),
            ("worker_threads = 0", plain, "a runtime needs at least 1 worker thread"),
            ("shield_main = 1", plain, "expected boolean literal"),
            ("shield_main", plain, "this option needs a value"),
            ("shield_main = true, shield_main = true", plain, "`shield_main` is given twice"),
            ("worker_threads = 2, flavor = \"current_thread\"", plain, "`worker_threads` needs"),
        ] {
            let expanded = main(args.parse().unwrap(), item.parse().unwrap()).to_string();
            assert!(expanded.contains(message), "no `{message}` in:\n{expanded}");
        }
        let expanded = test("paused = true".parse().unwrap(), plain.parse().unwrap()).to_string();
        assert!(expanded.contains("unknown option: expected `start_paused`"), "{expanded}");
    }
}
