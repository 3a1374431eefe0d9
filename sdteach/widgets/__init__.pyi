# The public names, and where each lives: loaded on its first use, as those of sdteach itself.
from .demo import Demo as Demo
from .explorer import Explorer as Explorer
from .explorer import LiveExplorer as LiveExplorer
from .explorer import TextExplorer as TextExplorer
from .explorer import live as live
from .region import RegionExplorer as RegionExplorer
from .stages import attention_explorer as attention_explorer
from .stages import guidance_dial as guidance_dial
from .stages import latent_explorer as latent_explorer
from .stages import noise_explorer as noise_explorer
from .stages import region_explorer as region_explorer
from .stages import run_scrubber as run_scrubber
from .stages import skip_mixer as skip_mixer
from .stages import token_explorer as token_explorer
from .stages import vae_explorer as vae_explorer
from .stages import vector_explorer as vector_explorer
