"""FCViT as released.

Paper: Ma et al., "A Close Look at Spatial Modeling: From Attention to Convolution", https://arxiv.org/abs/2212.12552.
There the stages stand at the even places of a list and the patch embeddings between them at the odd ones. The rounds of
the token mixer are counted from 1. Without competition the context's linears are numbered.
"""

from archspec.weights import register_source

STAGES = [
    rule
    for stage in range(4)
    for rule in (
        (rf"^network\.{2 * stage}\.(\d+)\.", rf"stages.{stage}.blocks.\1."),
        (rf"^network\.{2 * stage - 1}\.", f"stages.{stage}.downsample.body."),
    )
]
ROUNDS = [
    rule
    for number in (1, 2)
    for rule in (
        (rf"\.token_mixer\.gc{number}\.rescale_", rf".mixer.body.rounds.{number - 1}.context."),
        (rf"\.token_mixer\.gc{number}\.", rf".mixer.body.rounds.{number - 1}.context.vector."),
        (rf"\.token_mixer\.dw{number}\.", rf".mixer.body.rounds.{number - 1}.depthwise."),
        (rf"\.token_mixer\.fc{number}\.0\.", rf".mixer.body.rounds.{number - 1}.fc1."),
        (rf"\.token_mixer\.fc{number}\.2\.", rf".mixer.body.rounds.{number - 1}.fc2."),
    )
]

register_source(
    "fcvit",
    rules=[
        (r"^patch_embed\.", "stem.body."),
        (r"^norm\.", "stages.{last}.norm.body."),
        (r"^head\.", "head.classifier."),
        *STAGES,
        *ROUNDS,
        (r"\.vector\.fc\.0\.", ".vector.fc1."),
        (r"\.vector\.fc\.2\.", ".vector.fc2."),
        (r"^(stem|stages\.\d+\.downsample)\.body\.proj\.", r"\1.body.conv."),
        (r"\.token_mixer\.spatial_att\.spatial_att\.0\.", ".mixer.body.end.depthwise."),
        (r"\.token_mixer\.spatial_att\.spatial_att\.1\.", ".mixer.body.end.fc1."),
        (r"\.token_mixer\.spatial_att\.spatial_att\.3\.", ".mixer.body.end.fc2."),
        (r"\.channel_mixer\.channel_att\.channelConv([12])\.", r".ffn.end.0.conv\1."),
        (r"\.channel_mixer\.dwconv\.", ".ffn.body.depthwise."),
        (r"\.channel_mixer\.", ".ffn.body."),
        (r"\.norm1\.", ".mixer.norm."),
        (r"\.norm2\.", ".ffn.norm."),
        (r"\.layer_scale_1$", ".mixer.scale.gamma"),
        (r"\.layer_scale_2$", ".ffn.scale.gamma"),
    ],
)
