"""SG-Former as released.

Paper: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation",
https://arxiv.org/abs/2308.12216. Stages are counted from 1 there, and a convolution stands with its norm as c and bn.
Hybrid-scale and self-guided attention share names: of the former's blocks, the even ones, kv1 and kv2 are the coarse
and the fine group's, of the latter's they are of the two orders. Merging maps are for one input size.
"""

from archspec.weights import register_source

STAGES = [
    rule
    for stage in range(4)
    for rule in (
        (rf"^block{stage + 1}\.(\d+)\.norm1\.", rf"stages.{stage}.blocks.\1.mixer.norm."),
        (rf"^block{stage + 1}\.(\d+)\.attn\.", rf"stages.{stage}.blocks.\1.mixer.body."),
        (rf"^block{stage + 1}\.(\d+)\.norm2\.", rf"stages.{stage}.blocks.\1.ffn.norm."),
        (rf"^block{stage + 1}\.(\d+)\.mlp\.", rf"stages.{stage}.blocks.\1.ffn.body."),
        (rf"^norm{stage + 1}\.", f"stages.{stage}.norm.body."),
        (rf"^patch_embed{stage + 1}\.conv1\.c\.", f"stages.{stage}.downsample.body.expand."),
        (rf"^patch_embed{stage + 1}\.conv2\.c\.", f"stages.{stage}.downsample.body.reduce."),
        (rf"^patch_embed{stage + 1}\.conv3\.c\.", f"stages.{stage}.downsample.body.mix."),
        (rf"^patch_embed{stage + 1}\.conv(\d)\.bn\.", rf"stages.{stage}.downsample.body.norm\1."),
    )
]
STEM = [
    rule
    for index in range(3)
    for rule in (
        (rf"^patch_embed1\.conv\.{2 * index}\.c\.", f"stem.body.convs.{index}."),
        (rf"^patch_embed1\.conv\.{2 * index}\.bn\.", f"stem.body.norms.{index}."),
    )
]
EVEN = r"^(stages\.[0-2]\.blocks\.\d*[02468]\.mixer\.body)\."

register_source(
    "sgformer",
    rules=[
        (r"^pos_embed$", "stages.0.position.embedding"),
        *STEM,
        (r"^patch_embed1\.norm\.", "stem.body.norm_out."),
        *STAGES,
        (r"^head\.", "head.classifier."),
        (r"\.body\.dwconv\.dwconv\.", ".body.depthwise."),
        (r"\.body\.lepe_", ".body.lepe."),
        (EVEN + r"sr\.", r"\1.groups.0.merge.conv."),
        (EVEN + r"norm\.", r"\1.groups.0.merge.norm."),
        (EVEN + r"(q|kv)1\.", r"\1.groups.0.\2."),
        (EVEN + r"(q|kv)2\.", r"\1.groups.1.\2."),
        (r"\.body\.kv1\.", ".body.kv_rows."),
        (r"\.body\.kv2\.", ".body.kv_columns."),
        *((rf"\.body\.f{part + 1}\.", f".body.merges.{part}.") for part in range(3)),
    ],
)
