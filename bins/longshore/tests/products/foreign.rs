//! What is public lets no other crate's types through but those on a list: each of them is a
//! promise to keep that crate's version.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Fields, FnArg, ImplItem, Item, ReturnType, Signature, TraitItem, UseTree, Visibility};

use crate::PRODUCTS;
use crate::source::{is_test, sources};

/// The foreign crates whose types may be seen, and where.
const FOREIGN: &[(&str, &[&str])] = &[
    // A driver's parameters are JSON.
    ("cloud", &["serde_json"]),
    // Metrics are registered with the caller's registry.
    ("throttle", &["prometheus_client"]),
    ("pool", &["prometheus_client", "tokio"]),
];

#[test]
fn public_signatures_name_no_foreign_types_but_those_on_the_list() {
    let mut wrong = BTreeSet::new();
    let mut unused = BTreeSet::new();
    for product in PRODUCTS {
        let listed = FOREIGN.iter().find(|(name, _)| name == product);
        let allowed = listed.map_or(&[][..], |(_, allowed)| *allowed);
        let mut seen = BTreeSet::new();
        for source in sources(product) {
            let mut names = Names::default();
            names.imports(&source.file.items);
            names.items(&source.file.items);
            for (root, path) in names.foreign {
                if allowed.contains(&root.as_str()) {
                    seen.insert(root);
                } else {
                    wrong.insert(format!("{}: {path} of {root}", source.place));
                }
            }
        }
        let missing = allowed.iter().filter(|name| !seen.contains(**name));
        unused.extend(missing.map(|name| format!("{product}: {name}")));
    }
    assert!(wrong.is_empty(), "foreign types in public: {wrong:#?}");
    assert!(unused.is_empty(), "on the list but not there: {unused:#?}");
}

/// The types that the public items of one file name.
#[derive(Default)]
struct Names {
    /// Which crate a name that was imported comes from.
    roots: BTreeMap<String, String>,
    /// Foreign crates, and what of them is named.
    foreign: BTreeSet<(String, String)>,
}

impl Names {
    fn imports(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Use(item) => self.import(None, &item.tree),
                Item::Mod(module) => {
                    self.roots
                        .insert(module.ident.to_string(), "self".to_owned());
                    if let Some((_, items)) = &module.content {
                        self.imports(items);
                    }
                }
                _ => {}
            }
        }
    }

    fn import(&mut self, root: Option<&str>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                let first = path.ident.to_string();
                self.import(Some(root.unwrap_or(&first)), &path.tree);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(root, tree);
                }
            }
            UseTree::Name(name) => self.imported(root, name.ident.to_string()),
            UseTree::Rename(rename) => self.imported(root, rename.rename.to_string()),
            UseTree::Glob(_) => {}
        }
    }

    fn imported(&mut self, root: Option<&str>, name: String) {
        let root = root.map_or(name.clone(), str::to_owned);
        self.roots.entry(name).or_insert(root);
    }

    fn items(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Struct(item) if is_public(&item.vis) => {
                    self.visit_generics(&item.generics);
                    self.fields(&item.fields, false);
                }
                Item::Enum(item) if is_public(&item.vis) => {
                    for variant in &item.variants {
                        self.fields(&variant.fields, true);
                    }
                }
                Item::Type(item) if is_public(&item.vis) => self.visit_type(&item.ty),
                Item::Const(item) if is_public(&item.vis) => self.visit_type(&item.ty),
                Item::Fn(item) if is_public(&item.vis) => self.signature(&item.sig),
                Item::Trait(item) if is_public(&item.vis) => {
                    self.visit_generics(&item.generics);
                    for bound in &item.supertraits {
                        self.visit_type_param_bound(bound);
                    }
                    for method in &item.items {
                        if let TraitItem::Fn(method) = method {
                            self.signature(&method.sig);
                        }
                    }
                }
                Item::Impl(block) => {
                    for method in &block.items {
                        if let ImplItem::Fn(method) = method
                            && is_public(&method.vis)
                        {
                            self.signature(&method.sig);
                        }
                    }
                    // Of a conversion, what is converted.
                    if let Some((_, path, _)) = &block.trait_
                        && let Some(last) = path.segments.last()
                    {
                        self.visit_path_arguments(&last.arguments);
                    }
                }
                Item::Mod(module) if !is_test(&module.attrs) => {
                    if let Some((_, items)) = &module.content {
                        self.items(items);
                    }
                }
                _ => {}
            }
        }
    }

    fn fields(&mut self, fields: &Fields, all: bool) {
        for field in fields {
            if all || is_public(&field.vis) {
                self.visit_type(&field.ty);
            }
        }
    }

    fn signature(&mut self, signature: &Signature) {
        self.visit_generics(&signature.generics);
        for input in &signature.inputs {
            if let FnArg::Typed(input) = input {
                self.visit_type(&input.ty);
            }
        }
        if let ReturnType::Type(_, output) = &signature.output {
            self.visit_type(output);
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            let name = first.ident.to_string();
            let qualified = path.segments.len() > 1 && name.chars().all(|c| !c.is_uppercase());
            let root = match self.roots.get(&name) {
                // A module of ours that something was imported from.
                Some(root) => self.roots.get(root).unwrap_or(root).clone(),
                None if qualified => name,
                None => "self".to_owned(),
            };
            let ours = ["std", "core", "crate", "self", "super"].contains(&root.as_str())
                || root.starts_with("longshore_");
            if !ours {
                let last = path.segments.last().map(|last| last.ident.to_string());
                self.foreign.insert((root, last.unwrap_or_default()));
            }
        }
        visit::visit_path(self, path);
    }
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

#[test]
fn the_check_sees_what_is_named_and_imported() {
    let text = "
        use foo::{Bar, baz::Qux as Quux};
        pub struct A { pub a: Vec<Bar>, b: hidden::C }
        impl A { pub fn f(&self, q: &Quux) -> Result<(), longshore_types::Price> { } }
        impl From<other::Error> for A { fn from(_: other::Error) -> Self { } }
        fn private(_: secret::S) {}
    ";
    let file = syn::parse_file(text).expect("it is Rust");
    let mut names = Names::default();
    names.imports(&file.items);
    names.items(&file.items);
    let found: Vec<&str> = names
        .foreign
        .iter()
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(found, ["Bar", "Quux", "Error"]);
}
