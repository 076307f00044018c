"""The verifier process: reads one job on stdin, answers on stdout, and ends (DESIGN 5, 6.3).

It checks the files itself, hash and size first, then what the owner committed to, and only then runs the watermark
library. It judges nothing: counts go back, the rules' engine judges them. The library computes in deterministic fp32,
without TF32; yet a GPU adds up in another order than a CPU, so counts of a GPU that are near a threshold are counted
again on the CPU, where all nodes agree.

A claim on a prediction endpoint comes here twice: for the pictures that it is to be asked about, and with its answers.

What a hostile file can do here is end this process or waste its time; both are answers, given by the supervisor.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from node.endpoint.pictures import PICTURES_MAX, Pictures, Shape
from node.verifier.files import Settled, checked_evidence, least_matched, unless_contradictory
from node.verifier.protocol import (
    EXIT_TROUBLE,
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    READY,
    UNUSABLE_PUBLIC_MAX,
    Answer,
    Job,
    frame,
    frame_bytes,
    plain,
    unmeasured,
)
from node.verifier.questions import PIXEL_BYTES_MAX, QUESTIONS_BYTES_MAX, Questions
from node.verifier.sandbox import Report, confine, drop_privileges
from registry.counted import measurement_of
from registry.errors import MalformedError
from registry.verdict import (
    CONTROLS_MAX,
    ControlKind,
    Measurement,
    Outcome,
    Statistic,
    least_of_share,
)

if TYPE_CHECKING:
    import wm

# What CUDA holds beside the tensors counts as other programs', for this process and for the next one, which starts
# while this one works; each is less than a GiB.
OTHERS_BYTES_MAX = 2 * 2**30
NEAR = 3  # triggers
ENDPOINT = "endpoint"  # what answered instead of a device
NICENESS = 10  # a verification may wait, a heartbeat of the ledger process beside it may not
_REASONS = {"mismatch": "wrong_architecture"}  # other codes of the watermark library are reasons as they are


def answer(job: Job, *, device: str, public: Path | None = None) -> Answer | Questions:
    """Verify one claim's files; of a claim on an endpoint say what it is to be asked, or count what it answered.

    Args:
        job: what to verify.
        device: torch's word for where to compute.
        public: directory of public weights, in a folder for each architecture; None for none.

    Returns:
        The counts, or why there are none; or the pictures that are wanted. Whatever else goes wrong is raised, and is
        a crash.
    """
    try:
        evidence = checked_evidence(job)
        if job.wants_pictures:
            return _questions(job)
        least = least_matched(evidence, job.gamma_permille)
        found = steady(job, device, lambda place: _measure(job, place, public, least_matched=least))
        return unless_contradictory(found, evidence, job)
    except Settled as settled:
        return settled.answer
    except MalformedError as error:  # the evidence, or the info in it
        return unmeasured(Outcome.UNVERIFIABLE, error.code, str(error))


def steady(job: Job, device: str, measure: Callable[[str], Answer]) -> Answer:
    """Measure on a device, and again on the CPU where a few triggers more or less would change the outcome.

    Args:
        job: has the policy's shares.
        device: torch's word for where to compute first.
        measure: does it on a device.
    """
    found = measure(device)
    if device == "cpu" or found.measurement is None or not _is_near_a_threshold(found.measurement, job):
        return found
    return measure("cpu")


def _is_near_a_threshold(measurement: Measurement, job: Job) -> bool:
    """Whether a count is within NEAR triggers of a share by which it is judged, or as few permutations were as good."""
    if measurement.statistic is Statistic.INTEGRITY:  # any difference decides; the CPU is where all nodes agree
        return measurement.matched < measurement.total
    judged = [(measurement.matched, share) for share in (job.gamma_permille, job.refute_permille)]
    if measurement.matched_unaligned is not None:  # near γ, another device would not have aligned
        judged.append((measurement.matched_unaligned, job.gamma_permille))
    judged += [(c.matched, job.control_permille) for c in measurement.controls if c.kind is ControlKind.FRESH]
    total, chance_ppm = measurement.total, measurement.chance_ppm
    is_near = any(abs(count - least_of_share(share, total, chance_ppm)) <= NEAR for count, share in judged)
    return is_near or 0 < measurement.permutations_as_good <= NEAR


def _measure(job: Job, device: str, public: Path | None, *, least_matched: int) -> Answer:
    import torch  # noqa: PLC0415 -- a second: the process answers for missing files without it, and so do its tests

    import wm  # noqa: PLC0415 -- likewise

    try:
        architecture = wm.architecture_in(Path(job.evidence_path)).name
        _check_controls(job)
        usable, unusable = _usable_public(public, job, architecture)
        base, *nulls = _usable_declared(job)
        files = wm.ControlFiles(base=base, public=usable, nulls=tuple(filter(None, nulls)))
        result = _counted(job, files, device, least_matched=least_matched)
    except wm.WatermarkError as error:
        raise Settled(Outcome.UNVERIFIABLE, _REASONS.get(error.code, error.code), str(error)) from error
    except ValueError as error:  # what torch refuses to compute with: also of strangers' making
        raise Settled(Outcome.UNVERIFIABLE, "malformed", str(error)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        if device.startswith("cuda"):
            _blame_others(torch.cuda.mem_get_info(), reserved_bytes=torch.cuda.memory_reserved())
        raise Settled(Outcome.UNVERIFIABLE, "too_large", f"out of memory: {error}") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # torch's CPU allocator has no exception of its own
            raise
        raise Settled(Outcome.UNVERIFIABLE, "too_large", f"out of memory: {error}") from error
    return Answer(
        measurement=measurement_of(result),
        outcome=None,
        reason="",
        detail="",
        device=plain(result.device, 128) if job.answers is None else ENDPOINT,
        software=plain(result.software, 512),
        architecture=architecture if public is not None else "",
        unusable_public=unusable,
    )


def _counted(job: Job, files: "wm.ControlFiles", device: str, *, least_matched: int) -> "wm.Evidence":
    """Count in the suspect's file, or in what its endpoint answered."""
    import wm  # noqa: PLC0415 -- loaded by now

    evidence = Path(job.evidence_path)
    if job.answers is not None:
        return wm.verify_answers(
            job.answers,
            evidence,
            job.watermark_key,
            control_seed=job.control_seed,
            controls=job.controls,
            control_files=files,
            device=device,
        )
    return wm.verify(
        Path(job.model_path),
        evidence,
        job.watermark_key,
        control_seed=job.control_seed,
        permutations=job.permutations,
        controls=job.controls,
        control_files=files,
        least_matched=least_matched,
        device=device,
    )


def _questions(job: Job) -> Questions:
    import wm  # noqa: PLC0415 -- as of _measure

    try:
        questions = questions_in(Path(job.evidence_path), job.watermark_key)
    except wm.WatermarkError as error:
        reason = "white_box" if error.code == "mismatch" else error.code
        raise Settled(Outcome.UNVERIFIABLE, reason, str(error)) from error
    pictures = questions.pictures
    if len(pictures) > PICTURES_MAX or len(pictures) * pictures.shape.picture_bytes > PIXEL_BYTES_MAX:
        why = f"{len(pictures)} pictures of {pictures.shape} are too many to ask about"
        raise Settled(Outcome.UNVERIFIABLE, "too_large", why)
    return questions


def questions_in(evidence_path: Path, watermark_key: bytes) -> Questions:
    """Get the pictures of an evidence file, and how the marked network takes them.

    Raises:
        wm.WatermarkError: `mismatch` where the scheme is no black-box one; or the evidence is malformed.
        OSError: it cannot be read.
    """
    import wm  # noqa: PLC0415 -- as of _measure
    from wm.schemes.evidence import load_scheme_evidence  # noqa: PLC0415 -- likewise

    pixels = wm.class_triggers(evidence_path, watermark_key).pixels
    evidence = load_scheme_evidence(evidence_path)
    spec = evidence.info.pictures()
    pictures = Pictures(
        shape=Shape(channels=spec.channels, height=spec.height, width=spec.width),
        mean=spec.normalisation.mean,
        std=spec.normalisation.std,
        pixels=tuple(picture.numpy().tobytes() for picture in pixels),
    )
    return Questions(pictures=pictures, has_margin=evidence.scheme.statistic != "integrity")


def _usable_declared(job: Job) -> list[Path | None]:
    """The declared base, None for none, and the null models; what is wrong with them is not the suspect's fault."""
    import wm  # noqa: PLC0415 -- loaded by now

    paths = [Path(job.base_path) if job.base_path else None, *map(Path, job.null_paths)]
    try:
        for path in filter(None, paths):
            wm.check_suspect(path, Path(job.evidence_path))
    except wm.WatermarkError as error:
        raise Settled(Outcome.UNVERIFIABLE, "base_unusable", f"a declared model: {error}") from error
    return paths


def _controls_declared(job: Job) -> int:
    """How many controls there are beside public models."""
    return job.controls + bool(job.base_path) + len(job.null_paths)


def _check_controls(job: Job) -> None:
    """Settle a claim with more controls than a vote can list, before they are run for nothing."""
    if (count := _controls_declared(job)) > CONTROLS_MAX:
        why = f"{count} controls, of them {len(job.null_paths)} null models; a vote lists {CONTROLS_MAX}"
        raise Settled(Outcome.UNVERIFIABLE, "too_large", why)


def _usable_public(directory: Path | None, job: Job, architecture: str) -> tuple[tuple[Path, ...], int]:
    """Public weights of the evidence's architecture, by name, as many as a vote takes beside the other controls.

    A file that cannot be read as such a network says nothing of the claim: it is passed over, with a line in the log.

    Returns:
        The files, and how many others were passed over because they are no such network.
    """
    import wm  # noqa: PLC0415 -- loaded by now

    if directory is None:
        return (), 0
    room, usable = max(0, CONTROLS_MAX - _controls_declared(job)), []
    found = sorted((directory / architecture).glob("*.safetensors"))  # the name is in the catalogue
    for path in found:
        try:
            wm.check_suspect(path, Path(job.evidence_path))
        except (wm.WatermarkError, OSError) as error:
            sys.stderr.write(f"{path} is no control: {error}\n")
        else:
            usable.append(path)
    if len(usable) > room:
        sys.stderr.write(f"{len(usable) - room} public models of {architecture} are left out: a vote is full\n")
    return tuple(usable[:room]), min(len(found) - len(usable), UNUSABLE_PUBLIC_MAX)


def _blame_others(memory: tuple[int, int], *, reserved_bytes: int) -> None:
    """End the process if the device is full because of other programs: the claim may fit another time.

    Args:
        memory: free and total bytes of the device.
        reserved_bytes: what this process holds.

    Raises:
        SystemExit: code EXIT_TROUBLE, read by the supervisor.
    """
    free_bytes, total_bytes = memory
    if total_bytes - free_bytes - reserved_bytes > OTHERS_BYTES_MAX:
        raise SystemExit(EXIT_TROUBLE)


def serve(jobs: BinaryIO, answers: BinaryIO, work: Callable[[Job], Answer | Questions]) -> None:
    """Answer one job, unless the other side closes first: a process that has read files is not fit for another claim.

    Raises:
        MalformedError: the job cannot be read.
    """
    answers.write(frame(READY))
    answers.flush()
    if header := jobs.read(LENGTH_BYTES):
        job = Job.decode(jobs.read(frame_bytes(header)))
        reply = work(job)
        bytes_max = QUESTIONS_BYTES_MAX if isinstance(reply, Questions) else FRAME_BYTES_MAX
        answers.write(frame(reply.encode(), bytes_max=bytes_max))
        answers.flush()


def _warm_up(device: str, threads: int) -> str:
    """Import what takes seconds, so that the first claim does not wait for it and memory is counted after it.

    Returns:
        Where to compute: "auto" is the GPU where there is one.
    """
    import torch  # noqa: PLC0415 -- after the privileges are dropped

    import wm  # noqa: F401, PLC0415 -- likewise

    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # CUDA opens its devices, starts its threads and loads its libraries here, and not after the sandbox shut or while a
    # claim waits.
    picture = torch.zeros((1, 3, 8, 8), device=device)
    torch.nn.functional.conv2d(picture, picture).flatten(1) @ torch.zeros((1, 1), device=device)
    return device


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="node.verifier.worker")
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--memory-bytes-max", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--readable", type=Path, action="append", default=[], metavar="DIRECTORY")
    parser.add_argument("--public", type=Path, metavar="DIRECTORY")
    arguments = parser.parse_args()
    public: Path | None = arguments.public
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the frames
    # Libraries look for compilers and for a place to write when they are imported. They find none, and go on.
    os.environ["PATH"] = "/nonexistent"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.tempdir = "/proc"
    report = Report()
    readable = arguments.readable if public is None else [*arguments.readable, public]
    drop_privileges(arguments.parent, readable=readable, report=report)
    device = _warm_up(arguments.device, arguments.threads)
    is_cpu = device == "cpu"
    confine(arguments.memory_bytes_max if is_cpu else None, with_devices=not is_cpu, report=report)
    sys.stderr.write(f"{report}\n")
    serve(sys.stdin.buffer, answers, lambda job: answer(job, device=device, public=public))


if __name__ == "__main__":
    main()
