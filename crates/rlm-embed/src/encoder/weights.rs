//! The tensors of a BERT encoder, under the names of transformers.
//!
//! **Invariant:** every tensor has the shape that the configuration states and only finite numbers, or there is no encoder.
//! Matrices in F32 stay in the mapped file.

use std::path::Path;

use gguf_bitnet::{SafetensorsDir, TensorSource, TensorType, dequantize, encode_row, quantize_row};
use ternary_core::{Bytes, Rounding};
use tl_kernels::math::LayerNorm;
use tl_kernels::{DenseType, Linear};

use super::config::BertConfig;
use super::error::EncoderError;
use super::projection::{Affine, Projection, Range, RoundingRules};
use crate::error::Result;

/// The type in which the matrices of an encoder are held and multiplied. Norms and biases are F32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision, as the checkpoint has it.
    #[default]
    F32,
    /// 8 bits in blocks of 32, multiplied by activations in single precision.
    Q8_0,
    /// The same with activations rounded to INT8, all but the largest columns of each input. The matrices take more bytes than in
    /// `Q8_0`: the weights of these columns are there in F32, too. Loading takes longer: the encoder reads texts to learn the ranges
    /// of its inputs.
    Q8_0A8,
    /// Trits in blocks of 64 in the layers, chosen for the least error of each block, and the word embedding in Q8_0: for encoders
    /// that were trained so.
    Q2_0,
}

impl Precision {
    /// The types of the word embedding and of the matrices of the layers, as they are read.
    fn types(self) -> [DenseType; 2] {
        match self {
            Precision::F32 => [DenseType::F32, DenseType::F32],
            Precision::Q8_0 => [DenseType::Q8_0, DenseType::Q8_0],
            // They are rounded with the ranges of their inputs, which are not known yet.
            Precision::Q8_0A8 => [DenseType::Q8_0, DenseType::F32],
            Precision::Q2_0 => [DenseType::Q8_0, DenseType::Q2_0],
        }
    }
}

/// The parameters of a layer normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    pub(super) fn apply(&self, row: &mut [f32]) {
        LayerNorm { weight: &self.weight, bias: &self.bias, eps: self.eps }.apply(row);
    }
}

/// One encoder layer, in the order of its forward pass.
#[derive(Debug)]
pub(super) struct Layer {
    /// Query, key and value.
    pub(super) attention: Projection<3>,
    pub(super) output: Projection<1>,
    pub(super) attention_norm: Norm,
    pub(super) up: Projection<1>,
    pub(super) down: Projection<1>,
    pub(super) output_norm: Norm,
}

impl Layer {
    /// The same layer with its inputs rounded to INT8; `next` gives the ranges of the next input.
    fn rounded<'r>(self, mut next: impl FnMut() -> &'r [Range], rules: RoundingRules) -> Result<Layer> {
        Ok(Layer {
            attention: self.attention.rounded(next(), rules)?,
            output: self.output.rounded(next(), rules)?,
            up: self.up.rounded(next(), rules)?,
            down: self.down.rounded(next(), rules)?,
            ..self
        })
    }
}

/// All weights of an encoder.
#[derive(Debug)]
pub(super) struct BertWeights {
    /// The word embedding `[vocab, hidden]`.
    pub(super) words: Linear,
    /// The position embedding `[positions, hidden]`.
    pub(super) positions: Vec<f32>,
    /// Row 0 of the type embedding `[hidden]`: every text is of one segment.
    pub(super) segment: Vec<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
}

impl BertWeights {
    /// Whether the inputs of the layers are rounded to INT8.
    pub(super) fn is_rounded(&self) -> bool {
        self.layers.iter().any(|layer| layer.up.is_rounded())
    }

    /// Bytes that the weights take, mapped ones included; at their largest, which for rounded inputs is while they are made.
    pub(super) fn memory_bytes(&self) -> u64 {
        let floats = self.positions.len() + self.segment.len() + 2 * self.norm.weight.len();
        let of_layer = |layer: &Layer| {
            let norms = 2 * (layer.attention_norm.weight.len() + layer.output_norm.weight.len());
            let projections = layer.attention.memory_bytes() + layer.output.memory_bytes();
            projections + layer.up.memory_bytes() + layer.down.memory_bytes() + 4 * norms as u64
        };
        self.words.bytes().len() as u64 + 4 * floats as u64 + self.layers.iter().map(of_layer).sum::<u64>()
    }

    /// Reads the tensors of `source`, which `dir` names in messages; `hash` takes the bytes of every tensor.
    pub(super) fn read(
        source: SafetensorsDir,
        dir: &Path,
        config: &BertConfig,
        precision: Precision,
        hash: &mut blake3::Hasher,
    ) -> Result<BertWeights> {
        let prefix = if source.index_of("bert.embeddings.word_embeddings.weight").is_some() { "bert." } else { "" };
        let [words, layers] = precision.types();
        let mut reader = Reader { dir, source, prefix, layers, eps: config.layer_norm_eps, hash };
        let (h, f) = (config.hidden_size, config.intermediate_size);
        let words = reader.matrix("embeddings.word_embeddings.weight", config.vocab_size, h, words)?;
        let n_positions = config.max_position_embeddings;
        let positions = reader.values("embeddings.position_embeddings.weight", &[n_positions, h])?;
        let mut segment = reader.values("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, h])?;
        segment.truncate(h);
        let norm = reader.norm("embeddings.LayerNorm", h)?;
        let mut layers = Vec::new();
        for l in 0..config.num_hidden_layers {
            let at = |part: &str| format!("encoder.layer.{l}.{part}");
            layers.push(Layer {
                attention: Projection::new([
                    reader.affine(&at("attention.self.query"), h, h)?,
                    reader.affine(&at("attention.self.key"), h, h)?,
                    reader.affine(&at("attention.self.value"), h, h)?,
                ]),
                output: Projection::new([reader.affine(&at("attention.output.dense"), h, h)?]),
                attention_norm: reader.norm(&at("attention.output.LayerNorm"), h)?,
                up: Projection::new([reader.affine(&at("intermediate.dense"), f, h)?]),
                down: Projection::new([reader.affine(&at("output.dense"), h, f)?]),
                output_norm: reader.norm(&at("output.LayerNorm"), h)?,
            });
        }
        Ok(BertWeights { words, positions, segment, norm, layers })
    }

    /// The same weights with the inputs of the layers rounded to INT8; `ranges` are those of all inputs, in the order of the
    /// forward pass.
    pub(super) fn rounded(mut self, ranges: &[Vec<Range>], rules: RoundingRules) -> Result<BertWeights> {
        let mut ranges = ranges.iter();
        let mut next = || ranges.next().expect("a range for each input").as_slice();
        self.layers = self.layers.into_iter().map(|layer| layer.rounded(&mut next, rules)).collect::<Result<_>>()?;
        Ok(self)
    }
}

struct Reader<'a> {
    dir: &'a Path,
    source: SafetensorsDir,
    prefix: &'static str,
    /// The type of the matrices of the layers.
    layers: DenseType,
    eps: f32,
    hash: &'a mut blake3::Hasher,
}

impl Reader<'_> {
    fn affine(&mut self, name: &str, rows: usize, cols: usize) -> Result<Affine> {
        let matrix = self.matrix(&format!("{name}.weight"), rows, cols, self.layers)?;
        Ok(Affine { matrix, bias: self.values(&format!("{name}.bias"), &[rows])? })
    }

    fn norm(&mut self, name: &str, n: usize) -> Result<Norm> {
        let weight = self.values(&format!("{name}.weight"), &[n])?;
        Ok(Norm { weight, bias: self.values(&format!("{name}.bias"), &[n])?, eps: self.eps })
    }

    /// A matrix in the type `target`.
    fn matrix(&mut self, name: &str, rows: usize, cols: usize, target: DenseType) -> Result<Linear> {
        let (ty, bytes) = self.tensor(name, &[rows, cols])?;
        let mut row = vec![0.0; cols];
        let mut encoded = Vec::new();
        let is_taken = target == DenseType::F32 && ty == TensorType::F32;
        for stored in bytes.chunks_exact(ty.row_bytes(cols)?) {
            self.decode(name, ty, stored, &mut row)?;
            match target {
                DenseType::Q8_0 => quantize_row(TensorType::Q8_0, &row, &mut encoded)?,
                DenseType::Q2_0 => encode_row(TensorType::Q2_0, Rounding::LeastSquares, &row, None, &mut encoded)?,
                _ if is_taken => {}
                _ => encoded.extend(row.iter().flat_map(|x| x.to_le_bytes())),
            }
        }
        if is_taken {
            return Ok(Linear::dense(target, rows, cols, bytes)?);
        }
        if let Some(index) = self.source.index_of(&format!("{}{name}", self.prefix)) {
            self.source.release(index);
        }
        Ok(Linear::dense(target, rows, cols, Bytes::from(encoded))?)
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (ty, bytes) = self.tensor(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        self.decode(name, ty, &bytes, &mut values)?;
        Ok(values)
    }

    fn decode(&self, name: &str, ty: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        dequantize(ty, bytes, out)?;
        match out.iter().all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(EncoderError::NotFinite { path: self.dir.to_owned(), name: name.to_owned() }.into()),
        }
    }

    /// Type and bytes of a tensor, which the identity of the encoder then covers.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<(TensorType, Bytes)> {
        let full = format!("{}{name}", self.prefix);
        let path = || self.dir.to_owned();
        let index = self
            .source
            .index_of(&full)
            .ok_or_else(|| EncoderError::MissingTensor { path: path(), name: full.clone() })?;
        let info = &self.source.tensors()[index];
        if info.shape != shape {
            let (expected, got) = (shape.to_vec(), info.shape.clone());
            return Err(EncoderError::Shape { path: path(), name: full, expected, got }.into());
        }
        let bytes = self.source.bytes(index)?;
        self.hash.update(full.as_bytes()).update(&bytes);
        Ok((info.ty, bytes))
    }
}
