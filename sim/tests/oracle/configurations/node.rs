//! A document, and how it is changed and written.

use std::fmt::Write as _;

use serde_json::json;

/// A document, before it is written as YAML or JSON.
#[derive(Debug, Clone)]
pub enum Node {
    /// A string, in quotes.
    Text(String),
    /// Anything, as it stands.
    Raw(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

/// How a document is written.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    Json,
    Flow,
    Block,
}

/// What is done to a document.
#[derive(Debug, Clone)]
pub enum Change {
    Remove,
    Repeat,
    Becomes(Node),
    Named(String),
    Added(String, Node),
}

impl Node {
    pub fn size(&self) -> usize {
        1 + match self {
            Self::Text(_) | Self::Raw(_) => 0,
            Self::List(list) => list.iter().map(Self::size).sum(),
            Self::Map(map) => map.iter().map(|(_, value)| value.size()).sum(),
        }
    }

    /// Changes the node with this number, the document itself being 0.
    pub fn change(&mut self, mut at: usize, change: &Change) {
        if at == 0 {
            match change {
                Change::Becomes(node) => *self = node.clone(),
                Change::Added(name, value) => {
                    if let Self::Map(map) = self {
                        map.push((name.clone(), value.clone()));
                    }
                }
                _ => {}
            }
            return;
        }
        at -= 1;
        match self {
            Self::Text(_) | Self::Raw(_) => {}
            Self::List(list) => {
                for index in 0..list.len() {
                    let size = list[index].size();
                    if at < size {
                        match (at, change) {
                            (0, Change::Remove) => drop(list.remove(index)),
                            (0, Change::Repeat) => list.insert(index, list[index].clone()),
                            _ => list[index].change(at, change),
                        }
                        return;
                    }
                    at -= size;
                }
            }
            Self::Map(map) => {
                for index in 0..map.len() {
                    let size = map[index].1.size();
                    if at < size {
                        match (at, change) {
                            (0, Change::Remove) => drop(map.remove(index)),
                            (0, Change::Repeat) => map.push(map[index].clone()),
                            (0, Change::Named(name)) => map[index].0.clone_from(name),
                            _ => map[index].1.change(at, change),
                        }
                        return;
                    }
                    at -= size;
                }
            }
        }
    }

    pub fn written(&self, style: Style) -> String {
        let mut text = String::new();
        if matches!(style, Style::Block) {
            self.block(0, &mut text);
        } else {
            self.flow(style, &mut text);
        }
        text
    }

    fn flow(&self, style: Style, out: &mut String) {
        match self {
            Self::Text(text) => *out += &json!(text).to_string(),
            Self::Raw(text) => *out += text,
            Self::List(list) => {
                out.push('[');
                for (index, node) in list.iter().enumerate() {
                    *out += if index == 0 { "" } else { ", " };
                    node.flow(style, out);
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push('{');
                for (index, (name, node)) in map.iter().enumerate() {
                    *out += if index == 0 { "" } else { ", " };
                    *out += &if matches!(style, Style::Json) {
                        json!(name).to_string()
                    } else {
                        name.clone()
                    };
                    *out += ": ";
                    node.flow(style, out);
                }
                out.push('}');
            }
        }
    }

    /// Lists at the same depth as their name, as people write them.
    fn block(&self, depth: usize, out: &mut String) {
        let pad = " ".repeat(depth);
        match self {
            Self::List(list) if !list.is_empty() => {
                for node in list {
                    let _ = write!(out, "\n{pad}- ");
                    if matches!(node, Self::Map(_)) {
                        let mut inner = String::new();
                        node.block(depth + 2, &mut inner);
                        *out += inner.trim_start();
                    } else {
                        node.block(depth + 2, out);
                    }
                }
            }
            Self::Map(map) if !map.is_empty() => {
                for (name, node) in map {
                    let _ = write!(out, "\n{pad}{name}: ");
                    node.block(if matches!(node, Self::List(_)) { depth } else { depth + 2 }, out);
                }
            }
            _ => self.flow(Style::Flow, out),
        }
    }
}
