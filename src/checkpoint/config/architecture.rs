//! What a family's `config.json` comes to: a description of the encoder and of the head on it, of which the model is
//! built. Pure: names, sizes and choices.

use crate::kernels::Activation;

/// An encoder with a classification head.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// What the names of the encoder's tensors begin with, unless the checkpoint was saved from a bare encoder.
    pub prefix: &'static str,
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Attention heads; they divide `hidden_size`.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// The longest sequence in tokens.
    pub max_length: usize,
    /// Of the feed-forward layer.
    pub activation: Activation,
    /// Every layer norm.
    pub norm: Norm,
    /// Ids to the first hidden states.
    pub embeddings: Embeddings,
    /// The layers in the order in which they run. Layers of one name share their parameters.
    pub layers: Vec<Layer>,
    /// What a layer's tensors are called, and what it consists of.
    pub parts: LayerParts,
    /// Where a layer's norms stand.
    pub norm_placement: NormPlacement,
    /// What attention adds to scores for the distance of two tokens.
    pub distances: Distances,
    /// Hidden states to logits.
    pub head: Head,
}

/// Layer norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm {
    /// Added to the variance.
    pub eps: f64,
    /// Whether there is a bias.
    pub bias: bool,
}

/// The embeddings, summed, normalized and, if they are narrower than the hidden states, projected.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Columns of each table.
    pub size: usize,
    /// The word embedding.
    pub words: &'static str,
    /// The position embedding, if positions have one.
    pub positions: Option<AbsolutePositions>,
    /// Rows of the token type embedding, if there is one.
    pub token_types: Option<usize>,
    /// The layer norm.
    pub norm: &'static str,
    /// The dense layer to the width of the hidden states.
    pub projection: Option<&'static str>,
}

/// A position embedding, always called `embeddings.position_embeddings`.
#[derive(Debug, Clone, Copy)]
pub struct AbsolutePositions {
    /// Rows of the table.
    pub rows: usize,
    /// The row of the first token.
    pub first: usize,
    /// The id of a padding token, which does not count, wherever it stands, and has the row before the first.
    pub padding_id: Option<u32>,
}

/// One step of the encoder.
#[derive(Debug, Clone)]
pub struct Layer {
    /// What its tensors' names begin with, below the encoder's prefix.
    pub name: String,
    /// How many tokens on either side a token attends to; `None` means all.
    pub window: Option<usize>,
    /// The base of the rotations by which attention knows positions, if it knows them so.
    pub rotary_base: Option<f64>,
    /// Whether a norm stands before attention, if norms stand before (the embeddings' own may do for the first layer).
    pub has_attention_norm: bool,
}

impl Layer {
    /// A layer that attends to everything.
    pub(super) fn plain(name: String) -> Layer {
        Layer { name, window: None, rotary_base: None, has_attention_norm: true }
    }
}

/// The tensors of a layer, named below the layer.
#[derive(Debug, Clone, Copy)]
pub struct LayerParts {
    /// hidden to hidden
    pub query: Part,
    /// hidden to hidden
    pub key: Part,
    /// hidden to hidden
    pub value: Part,
    /// hidden to hidden
    pub attention_output: Part,
    /// A layer norm.
    pub attention_norm: &'static str,
    /// hidden to intermediate, activated
    pub intermediate: Part,
    /// hidden to intermediate, by which the activated one is multiplied
    pub gate: Option<Part>,
    /// intermediate to hidden
    pub output: Part,
    /// A layer norm.
    pub output_norm: &'static str,
}

/// A dense layer: a tensor `weight` and perhaps a `bias`, or one of several layers that are stored in one tensor, rows
/// after rows.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The layer's name.
    pub name: &'static str,
    /// Its place among those in the tensor.
    pub index: usize,
    /// How many are in the tensor.
    pub of: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Part {
    /// A tensor of its own, with a bias.
    pub const fn new(name: &'static str) -> Part {
        Part { name, index: 0, of: 1, bias: true }
    }
}

/// Where a layer's two norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Behind attention and feed-forward, after the residual is added.
    After,
    /// Before attention and feed-forward; one more stands behind the last layer.
    Before {
        /// Its name, below the encoder's prefix.
        last: &'static str,
    },
}

/// How the distance of two tokens enters their attention score.
#[derive(Debug, Clone)]
pub enum Distances {
    /// Not at all.
    None,
    /// A learned number for each head and bucket of distances, as in T5: (buckets, heads).
    Bias {
        /// The table, below the encoder's prefix.
        table: &'static str,
        /// Rows of the table: half for each direction.
        buckets: usize,
        /// All distances from here on share the last bucket.
        max_distance: usize,
    },
    /// Products with a learned vector for each bucket of distances, as in DeBERTa.
    Disentangled(Disentangled),
}

/// The relative positions of DeBERTa-v2.
#[derive(Debug, Clone)]
pub struct Disentangled {
    /// The table of 2 * `span` vectors, below the encoder's prefix.
    pub table: &'static str,
    /// The layer norm that the table goes through, if any.
    pub norm: Option<&'static str>,
    /// Buckets in each direction.
    pub span: usize,
    /// The distance that the last bucket is for, if buckets grow with the logarithm of the distance; `None` if each
    /// distance has its own.
    pub max_distance: Option<usize>,
    /// Content to position: the projection of the vectors that queries are multiplied by. It may be the keys' own.
    pub key: Option<Part>,
    /// Position to content: the projection of the vectors that keys are multiplied by. It may be the queries' own.
    pub query: Option<Part>,
}

/// The classification head: pool, dense, activation, perhaps a norm, and the dense layer that gives the logits.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// What becomes of a sequence's hidden states.
    pub pooling: Pooling,
    /// hidden to hidden
    pub dense: Part,
    /// Whether `dense` is named below the encoder's prefix.
    pub dense_is_in_encoder: bool,
    /// Behind `dense`.
    pub activation: Activation,
    /// A layer norm behind the activation.
    pub norm: Option<&'static str>,
    /// hidden to labels
    pub output: &'static str,
}

/// Many hidden states to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's.
    First,
    /// The mean of all.
    Mean,
}
