"""The architectures that `make coverage` converts: small variants, small images where they can."""

from __future__ import annotations

from typing import Any, Final

# Source, side of the image in px. Convolutional ones first; the others have attention, token
# mixing or normalization over channels, whose int8 form is partly float.
CNNS: Final[dict[str, int]] = {
    "torchvision:alexnet": 224,
    "torchvision:vgg11_bn": 224,
    "timm:resnet18": 96,
    "timm:resnet18d": 96,
    "timm:resnet50": 96,
    "timm:resnext50_32x4d": 96,
    "timm:seresnet50": 96,
    "timm:skresnet18": 96,
    "timm:resnest14d": 96,
    "timm:res2net50_14w_8s": 96,
    "timm:densenet121": 96,
    "torchvision:googlenet": 96,
    "torchvision:inception_v3": 128,
    "timm:xception41": 96,
    "torchvision:squeezenet1_1": 96,
    "timm:mobilenetv1_100": 96,
    "timm:mobilenetv2_050": 96,
    "timm:mobilenetv3_small_050": 96,
    "timm:mobilenetv3_large_075": 96,
    "timm:mobilenetv4_conv_small_035": 96,
    "timm:efficientnet_b0": 96,
    "timm:tf_efficientnet_lite0": 96,
    "timm:tf_efficientnetv2_b0": 96,
    "timm:regnetx_002": 96,
    "timm:regnety_002": 96,
    "timm:regnetz_005": 96,
    "timm:ghostnet_050": 96,
    "timm:ghostnetv2_100": 96,
    "torchvision:mnasnet0_5": 96,
    "torchvision:shufflenet_v2_x0_5": 96,
    "timm:repvgg_a0": 96,
    "timm:mobileone_s0": 96,
    "timm:repghostnet_050": 96,
    "timm:repvit_m0_9": 96,
    "timm:tinynet_e": 96,
    "timm:lcnet_050": 96,
    "timm:hardcorenas_a": 96,
    "timm:fbnetc_100": 96,
    "timm:semnasnet_075": 96,
    "timm:mixnet_s": 96,
    "timm:dla46_c": 96,
    "timm:hrnet_w18_small": 96,
    "timm:cspresnet50": 96,
    "timm:darknet53": 96,
    "timm:rexnet_100": 96,
    "timm:hgnetv2_b0": 96,
    "timm:ese_vovnet19b_slim": 96,
    "timm:selecsls42b": 96,
    "timm:dpn48b": 96,
    "timm:nf_regnet_b0": 96,
    "timm:starnet_s1": 96,
    "timm:inception_next_atto": 96,
}

OTHERS: Final[dict[str, int]] = {
    "timm:convnext_atto": 96,
    "timm:convnextv2_atto": 96,
    "timm:vit_tiny_patch16_224": 96,
    "timm:deit_tiny_patch16_224": 96,
    "timm:deit_tiny_distilled_patch16_224": 96,
    "timm:swin_tiny_patch4_window7_224": 224,
    "timm:mobilevit_xxs": 96,
    "timm:mobilevitv2_050": 96,
    "timm:mobilenetv4_hybrid_medium": 96,
    "timm:efficientformer_l1": 224,
    "timm:efficientformerv2_s0": 224,
    "timm:fastvit_t8": 96,
    "timm:levit_128s": 224,
    "timm:poolformer_s12": 96,
    "timm:edgenext_xx_small": 96,
    "timm:efficientvit_b0": 96,
    "timm:efficientvit_m0": 224,
    "timm:tiny_vit_5m_224": 224,
    "timm:mixer_s32_224": 224,
    "timm:resmlp_12_224": 224,
    "timm:pvt_v2_b0": 96,
    "timm:pit_ti_224": 224,
    "timm:coat_lite_tiny": 96,
    "timm:visformer_tiny": 224,
    "timm:mambaout_femto": 96,
    "timm:swiftformer_xs": 96,
    "timm:maxvit_pico_rw_256": 256,
}

# What an architecture needs to be told about another size of image.
ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    name: {"img_size": side}
    for name, side in OTHERS.items()
    if name.startswith(("timm:vit_", "timm:deit_", "timm:coat_"))
}

MODELS: Final = {**CNNS, **OTHERS}
