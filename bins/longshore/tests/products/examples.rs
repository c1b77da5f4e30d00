//! Whatever is public is shown in an example, or says why not.

use std::fs;
use std::path::Path;

use syn::{Attribute, Expr, ImplItem, Item, Lit, LitStr, Meta, TraitItem, Visibility};

use crate::PRODUCTS;
use crate::source::{Source, is_test, sources};

/// What a documentation comment says in place of an example, followed by why.
const NO_EXAMPLE: &str = "No example:";

/// One public item and its documentation.
#[derive(Debug)]
struct Public {
    place: String,
    name: String,
    doc: String,
    /// Methods may be shown in the example of something else.
    is_method: bool,
}

#[test]
fn every_public_item_is_shown_in_an_example_or_says_why_not() {
    let mut missing = Vec::new();
    for product in PRODUCTS {
        let mut items = Vec::new();
        let mut docs = Vec::new();
        for source in sources(product) {
            docs.push(doc(&source.file.attrs, &source.folder));
            collect(&source.file.items, &source, &mut items);
        }
        if items.is_empty() {
            missing.push(format!("{product}: nothing public was found"));
        }
        docs.extend(items.iter().map(|item| item.doc.clone()));
        let examples: String = docs.iter().map(|doc| code(doc)).collect();
        let unshown = items.iter().filter(|item| !is_shown(item, &examples));
        missing.extend(unshown.map(|item| format!("{}: {}", item.place, item.name)));
    }
    let list = missing.join("\n");
    let count = missing.len();
    assert!(missing.is_empty(), "{count} without an example:\n{list}");
}

fn is_shown(item: &Public, examples: &str) -> bool {
    let says_why = item.doc.lines().any(|line| {
        let reason = line.trim().strip_prefix(NO_EXAMPLE);
        reason.is_some_and(|reason| !reason.trim().is_empty())
    });
    let own = !code(&item.doc).trim().is_empty();
    says_why || own || (item.is_method && mentions(examples, &item.name))
}

/// Whether a word is in a text.
fn mentions(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|other| other == word)
}

/// What is public in a file. Nothing that is `pub` is out of reach: a lint sees to it.
fn collect(items: &[Item], source: &Source, found: &mut Vec<Public>) {
    let mut add = |vis: &Visibility, attrs: &[Attribute], name: String, is_method| {
        if matches!(vis, Visibility::Public(_)) && !is_test(attrs) {
            found.push(Public {
                place: source.place.clone(),
                name,
                doc: doc(attrs, &source.folder),
                is_method,
            });
        }
    };
    let mut modules = Vec::new();
    for item in items {
        match item {
            Item::Struct(item) => add(&item.vis, &item.attrs, item.ident.to_string(), false),
            Item::Enum(item) => add(&item.vis, &item.attrs, item.ident.to_string(), false),
            Item::Type(item) => add(&item.vis, &item.attrs, item.ident.to_string(), true),
            Item::Const(item) => add(&item.vis, &item.attrs, item.ident.to_string(), true),
            Item::Fn(item) => add(&item.vis, &item.attrs, item.sig.ident.to_string(), false),
            Item::Trait(item) => {
                add(&item.vis, &item.attrs, item.ident.to_string(), false);
                for method in &item.items {
                    if let TraitItem::Fn(method) = method {
                        let name = method.sig.ident.to_string();
                        add(&item.vis, &method.attrs, name, true);
                    }
                }
            }
            Item::Impl(block) if block.trait_.is_none() => {
                for method in &block.items {
                    if let ImplItem::Fn(method) = method {
                        let name = method.sig.ident.to_string();
                        add(&method.vis, &method.attrs, name, true);
                    }
                }
            }
            Item::Mod(module) if !is_test(&module.attrs) => modules.push(module),
            _ => {}
        }
    }
    for module in modules {
        if let Some((_, items)) = &module.content {
            collect(items, source, found);
        }
    }
}

/// The documentation comment of an item, with the files that it includes.
fn doc(attrs: &[Attribute], folder: &Path) -> String {
    let mut text = String::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("doc")) {
        let Meta::NameValue(pair) = &attr.meta else {
            continue;
        };
        match &pair.value {
            Expr::Lit(value) => {
                if let Lit::Str(line) = &value.lit {
                    text.push_str(&line.value());
                }
            }
            Expr::Macro(include) if include.mac.path.is_ident("include_str") => {
                let path: LitStr = include.mac.parse_body().expect("the path of a file");
                let included = fs::read_to_string(folder.join(path.value()));
                text.push_str(&included.expect("an included file can be read"));
            }
            _ => {}
        }
        text.push('\n');
    }
    text
}

/// The Rust code in a documentation comment.
fn code(doc: &str) -> String {
    let mut text = String::new();
    let mut inside = None;
    for line in doc.lines() {
        match (line.trim_start().strip_prefix("```"), inside) {
            (Some(language), None) => inside = Some(!language.starts_with("text")),
            (Some(_), Some(_)) => inside = None,
            (None, Some(true)) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    text
}

#[test]
fn the_check_tells_examples_from_prose() {
    let doc = " One sentence.\n\n ```\n let a = made();\n ```\n ```text\n drawn()\n ```\n";
    assert_eq!(code(doc).trim(), "let a = made();");
    assert!(mentions("core.made_up()", "made_up"));
    assert!(!mentions("core.made_up()", "made"));
}
