"""Linen modules: targets, evaluators, generators and language models, without a word about attacks or defenses.

Hidden layers are sown into the "features" collection under fixed names, so that an attack or a defense finds them in
every model: `logits, sown = module.apply(variables, x, mutable=["features"])`.
"""

from jaxmia.models.classifiers import MLP, VGG, DenoisingAutoencoderClassifier, EvaluatorCNN, ResNet, SoftmaxRegression
from jaxmia.models.conditional_gan import ClassifyingDiscriminator, ConditionalGenerator, ProjectionDiscriminator
from jaxmia.models.convolution import Conv, ConvTranspose, conv_general_dilated
from jaxmia.models.diffusion import Denoiser
from jaxmia.models.explained import ExplainedDecoder
from jaxmia.models.generators import DCGenerator, InversionDecoder, MapDecoder, WGANCritic
from jaxmia.models.graph import GAT, GCN, SAGE, NodeMLP, normalize_adjacency
from jaxmia.models.graph_classifier import GraphClassifier
from jaxmia.models.graph_sparse import SparseGAT, SparseGCN, SparseSAGE
from jaxmia.models.inpainting import InpaintingGenerator
from jaxmia.models.inputs import CenteredInput, StandardizedInput
from jaxmia.models.inversion_gan import InversionDiscriminator
from jaxmia.models.language import LSTMLanguageModel, TransformerLanguageModel
from jaxmia.models.perceptron import Perceptron
from jaxmia.models.vit import ViT

__all__ = [
    "GAT",
    "GCN",
    "MLP",
    "SAGE",
    "VGG",
    "CenteredInput",
    "ClassifyingDiscriminator",
    "ConditionalGenerator",
    "Conv",
    "ConvTranspose",
    "DCGenerator",
    "Denoiser",
    "DenoisingAutoencoderClassifier",
    "EvaluatorCNN",
    "ExplainedDecoder",
    "GraphClassifier",
    "InpaintingGenerator",
    "InversionDecoder",
    "InversionDiscriminator",
    "LSTMLanguageModel",
    "MapDecoder",
    "NodeMLP",
    "Perceptron",
    "ProjectionDiscriminator",
    "ResNet",
    "SoftmaxRegression",
    "SparseGAT",
    "SparseGCN",
    "SparseSAGE",
    "StandardizedInput",
    "TransformerLanguageModel",
    "ViT",
    "WGANCritic",
    "conv_general_dilated",
    "normalize_adjacency",
]
