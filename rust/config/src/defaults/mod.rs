//! Which files make up a composition: `defaults` lists, group choices, packages.
//!
//! Each file may begin with a `defaults` list that names other files. Expanding the lists from the primary file gives a
//! tree whose leaves, read from left to right, are the files to merge, each into its package (a place in the tree of
//! values). Choices on the command line and `override` entries replace the options of groups anywhere in that tree, so
//! lists are expanded from their end: an `override` entry, which is at the end, is known before what it overrides.

pub(crate) mod choices;
mod entry;
pub(crate) mod expand;
