"""Which of the public models that the operator keeps were no controls: claims are tested against fewer than he thinks.

A file that does not fit is no fault of a claim, so it changes no vote and is no illness of the node. It is counted,
and said to whoever asks for the node's state.
"""

from node.verifier.protocol import Answer

ARCHITECTURES_MAX = 32  # of which it is said; a process that was taken over could name any number


class PublicModels:
    """What verifications found of the files in controls_directory.

    Attributes:
        unusable: files that the latest claim on an architecture could not be tested against, by the architecture; those
            with none are left out.
        unusable_total: the same of all claims since the start, each time it was met.
    """

    def __init__(self) -> None:
        self.unusable: dict[str, int] = {}
        self.unusable_total = 0

    def note(self, answer: Answer) -> None:
        """Take down what one verification found."""
        if not answer.architecture:  # it came to no controls, or none are kept
            return
        self.unusable.pop(answer.architecture, None)
        if answer.unusable_public:
            self.unusable[answer.architecture] = answer.unusable_public
            self.unusable_total += answer.unusable_public
        while len(self.unusable) > ARCHITECTURES_MAX:
            del self.unusable[next(iter(self.unusable))]
