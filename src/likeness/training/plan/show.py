"""A plan as text."""

from likeness.training.methods.settings import MethodRecipe
from likeness.training.plan.memory import StageFit
from likeness.training.plan.plan import StagePlan, TrainingPlan


def describe(plan: TrainingPlan, recipe: MethodRecipe) -> str:
    """The plan in lines for a terminal."""
    lines = ["All numbers are counted; no GPU has measured them.", "", f"base: {plan.source}"]
    lines += ["", f"{'parameters':<24}{'trained':>10}{'frozen':>10}"]
    for part in plan.parts:
        lines.append(f"  {part.name:<22}{_count(part.trainable):>10}{_count(part.frozen):>10}")
    lines.append(f"  {'all':<22}{_count(plan.trainable):>10}{_count(plan.frozen):>10}")
    for number, (stage, settings) in enumerate(zip(plan.stages, recipe.stages, strict=True)):
        lines += ["", *_stage(plan, stage)]
        for each in stage.fits:
            lines += _fit(each, each.switches.overrides(settings, number))
    caches = plan.caches
    lines += [
        "",
        f"caches of {caches.images:,} images and {caches.clips:,} clips ({caches.source}): {_size(caches.total)}",
        f"  latents {_size(caches.latents)}, text states {_size(caches.text)}, references {_size(caches.references)}, "
        f"faces {_size(caches.targets)}",
    ]
    return "\n".join(lines)


def _stage(plan: TrainingPlan, stage: StagePlan) -> list[str]:
    length = f"{stage.steps:,} steps" if stage.steps is not None else f"{stage.minutes:g} minutes"
    tokens = stage.tokens
    lines = [
        f"stage `{stage.name}`: {length} of {stage.batch}; {tokens.video:,} video, {tokens.text} text and "
        f"{tokens.face} face tokens a sample",
        f"  {stage.step_flops / 1e12:,.0f} TFLOP a step, {stage.step_flops / stage.batch / 1e12:,.1f} a sample; the "
        f"forward pass {stage.work.forward / 1e12:,.1f}, of which the method {stage.work.method / 1e12:,.2f}",
    ]
    if stage.steps is not None:
        one, eight = (stage.hours(plan.tflops, cards) for cards in (1, 8))
        lines.append(f"  {one:,.0f} h on one GPU, {eight:,.0f} h on eight, assumed {plan.tflops:g} TFLOP/s a GPU")
    return lines


def _fit(each: StageFit, changes: list[str]) -> list[str]:
    memory, switches = each.memory, each.switches
    cards = f"{switches.cards} x {each.card_bytes / 1e9:.0f} GB"
    verdict = f"fits, {_size(memory.total)}" if each.fits else f"does not fit, {_size(memory.total)} at least"
    detail = (
        f"base {_size(memory.base)}, method {_size(memory.method)}, gradients and moments "
        f"{_size(memory.training_state)}, activations {_size(memory.activations)} ({switches.micro_batch} a "
        f"micro-batch), identity loss {_size(memory.identity_loss)}"
    )
    lines = [f"  {cards}: {verdict}", f"      {detail}"]
    if each.fits and changes:
        lines.append("      " + " ".join(f"--set {change}" for change in changes))
    return lines


def _count(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number) if number else "-"


def _size(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"
