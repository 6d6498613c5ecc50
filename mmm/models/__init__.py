"""The ways to fuse speech and text, and the linear system that they have to beat. Legend of shape
suffixes in this package:

B utterances, K context, A speech frames, T text tokens, P joint positions (text, then speech), F
speech width, E text width, D model width, C classes.

Every model is called as `model(speech, speech_mask, text, text_mask)`; masks are True where a value
is real. The pooled systems take a vector an utterance: speech_BKF with speech_mask_BK (False: the
dialogue has no such turn), text_BE. The sequence systems take speech_BAF with speech_mask_BA,
text_BTE with text_mask_BT.
"""

from torch import nn

from mmm.models.cross_attention import CrossAttention
from mmm.models.gated_fusion import GatedFusion
from mmm.models.late_fusion import LateFusion
from mmm.models.linear import LinearSystem
from mmm.models.mlp_mixer import MlpMixer
from mmm.models.three_way_concat import ThreeWayConcat
from mmm.models.vanilla_concat import VanillaConcat

# Those of MMM (2022), which has a recipe for each: docs/reference-systems.md.
PUBLISHED: dict[str, type[nn.Module]] = {
    "vanilla_concat": VanillaConcat,
    "three_way_concat": ThreeWayConcat,
    "cross_attention": CrossAttention,
    "mlp_mixer": MlpMixer,
}
ARCHITECTURES: dict[str, type[nn.Module]] = {
    **PUBLISHED,
    "gated_fusion": GatedFusion,
    "late_fusion": LateFusion,
}
# All that can be trained, bundled and exported; a sweep searches the ones above and trains `linear`
# as its baseline.
SYSTEMS: dict[str, type[nn.Module]] = {**ARCHITECTURES, "linear": LinearSystem}
