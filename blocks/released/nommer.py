"""NomMer as released.

Paper: Liu et al., "NomMer: Nominate Synergistic Context in Vision Transformer for Visual Recognition",
https://arxiv.org/abs/2111.12994. Stages, and the reductions between them, are counted from 1 there; a layer holds the
mixer (0) and the FFN (1). The DCT's fixed kernels are in the checkpoints: a network with `dct: matmul` computes them.
"""

from archspec.weights import register_source

STAGES = [
    rule
    for stage in range(4)
    for rule in (
        (rf"^transformer{stage + 1}\.layers\.(\d+)\.0\.", rf"stages.{stage}.blocks.\1.mixer."),
        (rf"^transformer{stage + 1}\.layers\.(\d+)\.1\.", rf"stages.{stage}.blocks.\1.ffn."),
        (rf"^merge{stage}\.", f"stages.{stage}.downsample.body."),
    )
]

register_source(
    "nommer",
    rules=[
        (r"^cnn1\.", "stem.body.conv."),
        (r"^bn1\.", "stem.body.norm."),
        (r"^pos_embedding$", "stages.2.position.embedding"),
        (r"^cls_token$", "stages.3.class_token.token"),
        (r"^mlp_head\.0\.", "stages.3.norm.body."),
        (r"^mlp_head\.1\.", "head.classifier."),
        *STAGES,
        (r"\.fn\.", ".body."),
        (r"\.body\.net\.0\.", ".body.fc1."),
        (r"\.body\.net\.3\.", ".body.fc2."),
        (r"\.body\.cnn\.", ".body.candidates.cnn_context."),
        (r"\.body\.attention\.", ".body.candidates.local_context."),
        (r"\.relative_position_bias_table$", ".bias_table"),
        (r"\.attentionG\.", ".candidates.global_context."),
        (r"\.dct_conv_8x8\.", ".dct.transform."),
        (r"\.global_context\.dw\.", ".global_context.reduce."),
        (r"\.global_context\.bn1\.", ".global_context.norm."),
        (r"\.global_context\.attn\.", ".global_context.attention."),
        (r"\.global_context\.up\.", ".global_context.expand."),
        (r"\.idct_conv\.0\.", ".inverse.transform."),
        (r"\.to_qkv\.", ".qkv."),
        (r"\.to_out\.0\.", ".proj."),
        (r"\.body\.fc\.", ".body.nominator.score."),
    ],
    changes=[
        # (1, H, W, C) -> (1, C, H, W), the form that carries its height and width along
        (r"^stages\.2\.position\.embedding$", lambda x: x.permute(0, 3, 1, 2) if x.ndim == 4 else x),
    ],
    skips=[
        (r"\.relative_position_index$", "follows from the window's size"),
        (r"\.global_context\.(dct|inverse)\.transform\.weight$", "a fixed DCT kernel, computed here"),
    ],
)
