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
from jaxmia.models.graph import GCN, normalize_adjacency
from jaxmia.models.inpainting import InpaintingGenerator
from jaxmia.models.inputs import CenteredInput, StandardizedInput
from jaxmia.models.inversion_gan import InversionDiscriminator
from jaxmia.models.language import LSTMLanguageModel, TransformerLanguageModel
from jaxmia.models.perceptron import Perceptron
from jaxmia.models.vit import ViT

__all__ = [
    "GCN",
    "MLP",
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
    "InpaintingGenerator",
    "InversionDecoder",
    "InversionDiscriminator",
    "LSTMLanguageModel",
    "MapDecoder",
    "Perceptron",
    "ProjectionDiscriminator",
    "ResNet",
    "SoftmaxRegression",
    "StandardizedInput",
    "TransformerLanguageModel",
    "ViT",
    "WGANCritic",
    "conv_general_dilated",
    "normalize_adjacency",
]
