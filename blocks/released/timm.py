"""Vision transformers, PiT and MLP-Mixer as timm names them: https://github.com/huggingface/pytorch-image-models.

PiT's position embedding is a map (1, C, H, W) there; archspec's takes it as it is.
"""

from archspec.weights import register_source

register_source(
    "timm",
    rules=[
        (r"^norm\.", "stages.{last}.norm.body."),
        (r"\.norm1\.", ".mixer.norm."),
        (r"\.norm2\.", ".ffn.norm."),
        (r"\.ls1\.", ".mixer.scale."),
        (r"\.ls2\.", ".ffn.scale."),
        (r"\.(attn|mlp_tokens)\.", ".mixer.body."),
        (r"\.(mlp|mlp_channels)\.", ".ffn.body."),
        (r"^head\.", "head.classifier."),
        (r"^cls_token$", "stages.0.class_token.token"),
        (r"^pos_embed$", "stages.0.position.embedding"),
        (r"^(patch_embed|stem)\.(proj|conv)\.", "stem.body.conv."),
        (r"^blocks\.", "stages.0.blocks."),
        (r"^transformers\.(\d+)\.blocks\.", r"stages.\1.blocks."),
        (r"^transformers\.(\d+)\.pool\.", r"stages.\1.downsample.body."),
    ],
)
