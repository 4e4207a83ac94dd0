"""Evaluations during training: `train.py --evaluate-every`."""

import logging
import os

import checkpoint
import config as configs
from evaluation.background import BackgroundEvaluation, Result
from training.run import Run

logger = logging.getLogger(__name__)


def start_evaluation(run: Run, evaluation: BackgroundEvaluation) -> None:
    """Start to evaluate the voice of this step, unless the last evaluation is still running."""
    step = run.trainer.position.step
    if evaluation.running:
        logger.info(
            "step %d is not evaluated, because the evaluation of step %d is running", step, evaluation.running[0]
        )
        return
    path = evaluation.voice(step)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_voice(run.trainer, path)
    evaluation.start(step)


def collect(run: Run, wait: bool = False) -> None:
    """Report the result of an evaluation that has ended, and keep its voice if it is the best by that measure."""
    result = run.evaluation.result(wait) if run.evaluation else None
    if result is None:
        return
    run.reporter.scalars(result.step, {f"evaluation/{name}": value for name, value in result.values.items()})
    keep_if_best(run, result)


def keep_if_best(run: Run, result: Result) -> None:
    """Record an evaluation, and make its voice `G_best.pth` if it is the best by that measure."""
    if run.trainer.update_best(result.values) and result.voice.exists():
        os.replace(result.voice, run.folder / "G_best.pth")
    result.voice.unlink(missing_ok=True)


def recall_evaluations(run: Run, evaluation: BackgroundEvaluation) -> None:
    """Find the best of the evaluations of earlier starts, of which some may have ended after the last checkpoint."""
    if run.trainer.best_measure() in configs.EVALUATED:
        run.trainer.position.best, run.trainer.position.waited = float("inf"), 0
        for result in evaluation.past():
            keep_if_best(run, result)
    for voice in evaluation.folder.glob("*/voice.pth"):  # of evaluations that were ended
        voice.unlink()
