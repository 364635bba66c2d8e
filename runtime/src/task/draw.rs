//! Drawings of graphs: Graphviz text, and SVG.
//!
//! Tasks are boxes, values that are there already are ellipses, arrows go the way of the data. A file appears under its name
//! once it is whole.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use starling_core::graph::GraphInput;

use super::delayed::short_name;
use super::future::ClientError;
use super::graph::Graph;
use crate::whole_file;

/// How many places a layout may have: tasks, and the rows that arrows pass. Arranging more takes many seconds.
#[cfg(feature = "visualize")]
const LAYOUT_PLACES_MAX: usize = 1_500;

/// How many characters of a name are shown.
const TITLE_CHARS_MAX: usize = 60;

/// Why a graph was not drawn. No file is left of it.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// The file's extension says no format.
    #[error("{} has no extension that says how to draw: give .svg, or .dot for Graphviz", .0.display())]
    UnknownFormat(PathBuf),
    /// It is too large to be arranged here.
    #[error(
        "a graph of {tasks} tasks and {arrows} arrows is too large to be drawn here: write a .dot file, for Graphviz's sfdp"
    )]
    TooLarge {
        /// How many tasks it has.
        tasks: usize,
        /// How many dependences.
        arrows: usize,
    },
    /// Tasks wait for each other, so that there is no order to draw them in.
    #[error("the graph has a cycle and cannot be drawn as .svg: write a .dot file to see it")]
    Cyclic,
    /// The layout could not be made, which is a fault of the program that arranges it.
    #[error("the graph could not be arranged: write a .dot file, and draw it by Graphviz")]
    Layout,
    /// Built without drawing.
    #[error("this program was built without the feature `visualize`: write a .dot file, or build it with the feature")]
    NotBuilt,
    /// A call of the graph is wrong.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file could not be written.
    #[error("{} could not be written: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What is drawn.
struct Picture {
    nodes: Vec<Node>,
    /// From whose output to who takes it, each pair once.
    arrows: BTreeSet<(usize, usize)>,
}

struct Node {
    title: String,
    /// Whether it is a task of the graph, and not something that is there already or missing.
    is_task: bool,
}

impl Graph {
    /// Draws the graph into this file: `.svg` is a picture, `.dot` or `.gv` a text that Graphviz draws. A graph of some hundred
    /// tasks may take a second.
    ///
    /// # Errors
    /// [`DrawError::TooLarge`] for a picture of more than about a thousand tasks, or fewer with very many arrows: write `.dot`.
    pub fn visualize(&self, path: impl AsRef<Path>) -> Result<(), DrawError> {
        let path = path.as_ref();
        let text = match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => self.to_svg()?,
            Some("dot" | "gv") => self.to_dot(),
            _ => return Err(DrawError::UnknownFormat(path.to_owned())),
        };
        whole_file::write(path, text.as_bytes()).map_err(|source| DrawError::Io { path: path.to_owned(), source })
    }

    /// The graph as a text that Graphviz draws.
    pub fn to_dot(&self) -> String {
        let Picture { nodes, arrows } = self.picture();
        let mut dot = "digraph {\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n".to_owned();
        for (number, node) in nodes.iter().enumerate() {
            let shape = if node.is_task { "" } else { ", shape=ellipse" };
            // Writing to a string does not fail.
            let _ = writeln!(dot, "  n{number} [label=\"{}\"{shape}];", dot_escaped(&node.title));
        }
        for (from, to) in arrows {
            let _ = writeln!(dot, "  n{from} -> n{to};");
        }
        dot.push_str("}\n");
        dot
    }

    fn picture(&self) -> Picture {
        let tasks = self.tasks();
        let titles = self.titles();
        let mut number_of: HashMap<GraphInput, usize> =
            tasks.iter().enumerate().map(|(number, task)| (GraphInput::Key(task.key.to_owned()), number)).collect();
        let title = |task: &starling_core::graph::GraphTask<'_>| {
            titles.get(task.key).cloned().unwrap_or_else(|| {
                let function = self.def_of(task.kind).map_or("", |def| short_name(def.name));
                if function == task.key { function.to_owned() } else { format!("{}\n{function}", shortened(task.key)) }
            })
        };
        let mut nodes: Vec<Node> =
            tasks.iter().map(|task| Node { title: shortened(&title(task)), is_task: true }).collect();
        let mut arrows = BTreeSet::new();
        for (to, task) in tasks.iter().enumerate() {
            for input in task.inputs {
                let from = *number_of.entry(input.clone()).or_insert_with(|| {
                    let title = match input {
                        GraphInput::Key(key) => format!("{} is missing", shortened(key)),
                        GraphInput::Submitted(index) => format!("future {index}"),
                    };
                    nodes.push(Node { title, is_task: false });
                    nodes.len() - 1
                });
                arrows.insert((from, to));
            }
        }
        Picture { nodes, arrows }
    }

    #[cfg(not(feature = "visualize"))]
    fn to_svg(&self) -> Result<String, DrawError> {
        Err(DrawError::NotBuilt)
    }

    /// The graph as a picture in SVG.
    #[cfg(feature = "visualize")]
    fn to_svg(&self) -> Result<String, DrawError> {
        let picture = self.picture();
        let too_large = DrawError::TooLarge { tasks: self.len(), arrows: picture.arrows.len() };
        if picture.nodes.len() > LAYOUT_PLACES_MAX {
            return Err(too_large);
        }
        let rows = picture.rows().ok_or(DrawError::Cyclic)?;
        let passed: usize = picture.arrows.iter().map(|(from, to)| rows[*to] - rows[*from] - 1).sum();
        if picture.nodes.len() + passed > LAYOUT_PLACES_MAX {
            return Err(too_large);
        }
        // It is not ours, and its assertions should not end a program that only wanted to look at a graph.
        std::panic::catch_unwind(|| svg::draw(&picture)).map_err(|_| DrawError::Layout)
    }
}

#[cfg(feature = "visualize")]
impl Picture {
    /// The longest way to each node, in arrows; `None` if there is a cycle.
    fn rows(&self) -> Option<Vec<usize>> {
        let mut arrows_to = vec![0_usize; self.nodes.len()];
        let mut arrows_from = vec![Vec::new(); self.nodes.len()];
        for (from, to) in &self.arrows {
            arrows_to[*to] += 1;
            arrows_from[*from].push(*to);
        }
        let mut rows = vec![0; self.nodes.len()];
        let mut ready: Vec<usize> = (0..self.nodes.len()).filter(|node| arrows_to[*node] == 0).collect();
        let mut count = 0;
        while let Some(from) = ready.pop() {
            count += 1;
            for &to in &arrows_from[from] {
                rows[to] = rows[to].max(rows[from] + 1);
                arrows_to[to] -= 1;
                if arrows_to[to] == 0 {
                    ready.push(to);
                }
            }
        }
        (count == self.nodes.len()).then_some(rows)
    }
}

#[cfg(feature = "visualize")]
mod svg {
    use layout::backends::svg::SVGWriter;
    use layout::core::base::Orientation;
    use layout::core::geometry::{Point, get_size_for_str};
    use layout::core::style::StyleAttr;
    use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
    use layout::topo::layout::VisualGraph;

    use super::Picture;

    pub(super) fn draw(picture: &Picture) -> String {
        let way = Orientation::TopToBottom;
        let mut graph = VisualGraph::new(way);
        let mut handles = Vec::with_capacity(picture.nodes.len());
        for node in &picture.nodes {
            let look = StyleAttr::simple();
            let size = get_size_for_str(&node.title, look.font_size);
            let shape = if node.is_task { ShapeKind::new_box(&node.title) } else { ShapeKind::new_circle(&node.title) };
            let size = Point::new(size.x + 20., size.y + 16.);
            handles.push(graph.add_node(Element::create(shape, look, way, size)));
        }
        for (from, to) in &picture.arrows {
            graph.add_edge(Arrow::simple(""), handles[*from], handles[*to]);
        }
        let mut writer = SVGWriter::new();
        // Also of a graph without tasks, which the layout does not take.
        if !handles.is_empty() {
            graph.do_it(false, false, false, &mut writer);
        }
        writer.finalize()
    }
}

/// A name that fits, without what a picture cannot show.
fn shortened(name: &str) -> String {
    let is_shown = |char: &char| !char.is_control() || *char == '\n';
    let mut shown: String = name.chars().filter(is_shown).take(TITLE_CHARS_MAX).collect();
    if name.chars().filter(is_shown).nth(TITLE_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn dot_escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
