//! What a family's `config.json` is turned into: a description of the encoder and its head, from which the model is
//! built. Only data: names, sizes and choices.

use crate::kernels::Activation;

/// An encoder with a classification head.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// Prefix of the encoder's tensor names, unless the checkpoint was saved from a bare encoder.
    pub prefix: &'static str,
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Attention heads; `hidden_size` is a multiple of this.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// The longest sequence in tokens.
    pub max_length: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Settings of every layer norm.
    pub norm: Norm,
    /// Token ids to the first hidden states.
    pub embeddings: Embeddings,
    /// The layers in execution order. Layers with the same name share their parameters.
    pub layers: Vec<Layer>,
    /// The names of a layer's tensors, and its parts.
    pub parts: LayerParts,
    /// Where a layer's norms are.
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
    /// The position embedding, if the family has one.
    pub positions: Option<AbsolutePositions>,
    /// Rows of the token type embedding, if there is one.
    pub token_types: Option<usize>,
    /// The layer norm.
    pub norm: &'static str,
    /// The dense layer that projects to the width of the hidden states.
    pub projection: Option<&'static str>,
}

/// A position embedding, always called `embeddings.position_embeddings`.
#[derive(Debug, Clone, Copy)]
pub struct AbsolutePositions {
    /// Rows of the table.
    pub rows: usize,
    /// The row of the first token.
    pub first: usize,
    /// The id of the padding token. Padding tokens are not counted wherever they are, and have the row before the
    /// first.
    pub padding_id: Option<u32>,
}

/// One step of the encoder.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Prefix of its tensor names, below the encoder's prefix.
    pub name: String,
    /// How many tokens on either side a token attends to; `None` means all.
    pub window: Option<usize>,
    /// The base of the rotary position embedding, if the family uses one.
    pub rotary_base: Option<f64>,
    /// Whether a norm comes before attention, if norms come first (the embeddings' own norm may replace it in the first
    /// layer).
    pub has_attention_norm: bool,
}

impl Layer {
    /// A layer that attends to all tokens.
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
    /// hidden to intermediate, multiplied with the activated one
    pub gate: Option<Part>,
    /// intermediate to hidden
    pub output: Part,
    /// A layer norm.
    pub output_norm: &'static str,
}

/// A dense layer: a tensor `weight` and optionally a `bias`, or one of several layers stored in one tensor, rows after
/// rows.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The layer's name.
    pub name: &'static str,
    /// Its index among the layers in the tensor.
    pub index: usize,
    /// Number of layers in the tensor.
    pub of: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Part {
    /// A layer with its own tensor and a bias.
    pub const fn new(name: &'static str) -> Part {
        Part { name, index: 0, of: 1, bias: true }
    }
}

/// Where a layer's two norms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// After attention and feed-forward, once the residual is added.
    After,
    /// Before attention and feed-forward, with another norm after the last layer.
    Before {
        /// Its name, below the encoder's prefix.
        last: &'static str,
    },
}

/// How the distance of two tokens affects their attention score.
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
        /// All distances from this one on share the last bucket.
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
    /// The layer norm applied to the table, if any.
    pub norm: Option<&'static str>,
    /// Buckets in each direction.
    pub span: usize,
    /// The distance of the last bucket, if buckets grow with the logarithm of the distance; `None` if each distance has
    /// its own bucket.
    pub max_distance: Option<usize>,
    /// Content to position: the projection of the vectors that queries are multiplied with, or the keys' own.
    pub key: Option<Part>,
    /// Position to content: the projection of the vectors that keys are multiplied with, or the queries' own.
    pub query: Option<Part>,
}

/// The classification head: pooling, a dense layer, its activation, sometimes a norm, and the dense layer that computes
/// the logits.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// How a sequence's hidden states are pooled.
    pub pooling: Pooling,
    /// hidden to hidden
    pub dense: Part,
    /// Whether the name of `dense` is below the encoder's prefix.
    pub dense_is_in_encoder: bool,
    /// Activation after `dense`.
    pub activation: Activation,
    /// A layer norm after the activation.
    pub norm: Option<&'static str>,
    /// hidden to labels
    pub output: &'static str,
}

/// Reduces a sequence's hidden states to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's.
    First,
    /// The mean of all.
    Mean,
}
