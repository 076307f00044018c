"""MTLSign: a watermark as a second task of the network.

Source: Li, Yang, Wang, Liew, "Leveraging Multi-task Learning for Unambiguous and Flexible Deep Neural Network
Watermarking", 2022.
"""

from wm.schemes.mtlsign.mark import Mark
from wm.schemes.mtlsign.preparation import NAME
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.schemes.mtlsign.stage2 import Marked, embed

__all__ = ["NAME", "EmbedSettings", "Mark", "Marked", "embed"]
