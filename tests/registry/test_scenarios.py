"""Stories of pirates as transcripts (tests/scenarios): what everyone does, and what the ledger answers.

A line that begins with ">" is a move, the line after it the answer that is expected; "#" begins a remark. Names of
messages are given by "as NAME".
"""

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import LedgerMaker, good_measurement, policy

from registry.rules import Accepted
from registry.verdict import Outcome

STORIES = sorted((Path(__file__).parents[1] / "scenarios").glob("*.txt"))
MEASURED = {Outcome.VERIFIED: ("matched", 600), Outcome.REFUTED: ("below_threshold", 300)}


class Stage:
    """Plays moves on a ledger; remembers messages by their names."""

    def __init__(self):
        self.maker, self.named = LedgerMaker(), {}

    def play(self, line):
        verb, *words = line.split()
        name = words[words.index("as") + 1] if "as" in words else None
        answer = getattr(self, verb)(*(words[: words.index("as")] if name else words))
        if name and isinstance(answer, Accepted):
            self.named[name] = answer.message_hash
        return answer if isinstance(answer, str) else self.tell(answer)

    def tell(self, *applied):
        places = [f"{a.index}" if isinstance(a, Accepted) else a.code for a in applied]
        return f"{'accepted' if isinstance(applied[0], Accepted) else 'refused'} {' '.join(places)}"

    def publish(self, mark, _commits=None, copied=None):
        owner, number = mark.split("/")
        message = self.maker.publication_message(owner, number=int(number))
        if copied:
            of, its_number = copied.split("/")
            message = replace(message, key_commitment=self.maker.committed(of, number=int(its_number)).key)
        return self.maker.submit(self.maker.seal(message, owner))

    def claim(self, mark, _on, publication, _model, model, _signed=None, signer=None):
        owner, number = mark.split("/")
        message = self.maker.claim_message(owner, self.named[publication], model=model.encode(), number=int(number))
        return self.maker.submit(self.maker.seal(message, signer or owner))

    def vote(self, claim, *words):
        nodes = [int(word) for word in words if word.isdigit() and int(word) < 10]
        outcome = next(Outcome(word) for word in words if word in set(Outcome))
        reason, matched = MEASURED[outcome]
        measurement = good_measurement(int(words[-1]) if "with" in words else matched)
        return self.tell(
            *(
                self.maker.vote(node, self.named[claim], outcome=outcome, reason=reason, measurement=measurement)
                for node in nodes
            )
        )

    def challenge(self, claim, _by, publication, owner):
        return self.maker.challenge(owner, self.named[claim], self.named[publication])

    def withdraw(self, target, _by, owner):
        return self.maker.withdraw(owner, self.named[target])

    def rotate(self, old, _to, new):
        return self.maker.rotate(old, new)

    def members(self, *words):
        members, signers = words[: words.index("signed")], words[words.index("signed") + 1 :]
        return self.maker.change_policy(policy(*map(int, members)), *(f"node-{number}" for number in signers))

    def verdict(self, claim):
        verdict = self.maker.ledger.verdict(self.named[claim])
        names = {digest: name for name, digest in self.named.items()}
        told = [f"{verdict.outcome or 'open'} ({verdict.reason}) by {' '.join(verdict.members) or 'nobody'}"]
        if verdict.rivals:
            told.append(f"rivals {' '.join(names[rival] for rival in verdict.rivals)}")
        if verdict.superseded_by:
            told.append(f"superseded by {names[verdict.superseded_by]}")
        if verdict.challenges:
            told.append(f"challenges {len(verdict.challenges)}")
        return "; ".join(told)


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_a_story_goes_as_it_is_told(story):
    lines = [line for line in story.read_text().splitlines() if line and not line.startswith("#")]
    moves, expected = lines[::2], lines[1::2]
    assert moves
    assert all(move.startswith("> ") for move in moves)
    stage = Stage()
    played = [answer for move in moves for answer in (move, stage.play(move.removeprefix("> ")))]
    assert played == [line for pair in zip(moves, expected, strict=True) for line in pair]
