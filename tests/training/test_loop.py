"""The loop: repeatable, able to learn, and able to say why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, isfinite, log, nan
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR, MultiStepLR, PolynomialLR

from tests.support.rows import epoch_row
from tests.support.training_data import RECIPE, learner, module, task, write_images
from vggc.data.find import find_images
from vggc.data.loader import TrainBatches
from vggc.data.order import Share
from vggc.data.prepare import prepare
from vggc.ir.layer_recipe import LayerRecipe
from vggc.recipe.train import (
    AdamW,
    Constant,
    Cosine,
    Glorot,
    He,
    Init,
    Normal,
    OneCycle,
    Plateau,
    Poly,
    Recipe,
    Sgd,
    StepSchedule,
)
from vggc.support.diagnostics import UserError
from vggc.training import diagnostics, loop
from vggc.training.checkpoint import unsound
from vggc.training.initialise import initialise
from vggc.training.learner import Learner, StepResult, TrainMachine, choose_machine, optimiser
from vggc.training.loop import Saving, Watching, fit
from vggc.training.progress import (
    EpochDone,
    Event,
    Finished,
    ImagesLost,
    Outcome,
    Progress,
    StepDone,
    Stopped,
    is_sound,
)
from vggc.training.schedules import drops, learning_rate
from vggc.training.session import TrainTask


def run(recipe: Recipe, net: nn.Module) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    return carry_out(task(recipe, net), events), events


def carry_out(
    whole: TrainTask, events: list[Event], saved: list[Progress] | None = None
) -> Outcome:
    """The whole training, which tells of its `events` and of what it would have `saved`; this
    process makes the batches.
    """
    return fit(
        whole.learner(),
        whole.data,
        whole.recipe,
        whole.order,
        progress=Progress(),
        saving=Saving(lambda progress, wait: None if saved is None else saved.append(progress)),
        watching=Watching(events.append, lambda: False),
        workers=0,
    )


def batches(recipe: Recipe = RECIPE, seed: int = 0) -> TrainBatches:
    whole = task(recipe, seed=seed)
    return TrainBatches(whole.data.train, whole.order, Share())


def mean_loss(measured: StepResult) -> float:
    sums = measured.read()
    return sums.loss / sums.images


def test_two_seeded_steps_are_bit_identical() -> None:
    def two_steps() -> dict[str, torch.Tensor]:
        net = module()
        initialise(net, He(), seed=1)
        taught = learner(net=net, seed=1)
        for step in range(2):
            taught.step(batches(seed=1)[step], step, lr=0.1)
        return net.state_dict()

    first, second = two_steps(), two_steps()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_batch_overfits() -> None:
    net = module()
    net[6] = nn.Identity()
    initialise(net, He(), seed=0)
    taught = learner(net=net)
    losses = [mean_loss(taught.step(batches()[0], 0, lr=0.05)) for _ in range(60)]
    assert losses[0] > 0.5
    assert losses[-1] < 0.01


def test_a_training_tells_of_each_step_and_epoch() -> None:
    net = module()
    initialise(net, He(), 0)
    outcome, events = run(RECIPE, net)
    assert isinstance(outcome, Finished)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [step.done for step in steps] == [*range(1, 13)]
    assert {step.total for step in steps} == {12}
    epochs = [event.epoch for event in events if isinstance(event, EpochDone)]
    assert tuple(epochs) == outcome.progress.epochs
    assert [(epoch.epoch, epoch.step) for epoch in epochs] == [(1, 4), (2, 8), (3, 12)]
    assert all(epoch.val_top1 <= epoch.val_top5 == 1 for epoch in epochs)


def test_a_training_in_steps_cuts_its_last_epoch_short() -> None:
    net = module()
    initialise(net, He(), 0)
    recipe = replace(RECIPE, epochs=None, steps=6)
    outcome, events = run(recipe, net)
    assert isinstance(outcome, Finished)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [(step.done, step.total) for step in steps] == [(k, 6) for k in range(1, 7)]
    assert [(epoch.epoch, epoch.step) for epoch in outcome.progress.epochs] == [(1, 4), (2, 6)]
    assert (recipe.num_steps(4), recipe.num_epochs(4), recipe.num_epochs(6)) == (6, 2, 1)
    assert (RECIPE.num_steps(4), RECIPE.num_epochs(4)) == (12, 3)


def test_frozen_weights_stay_and_the_others_learn() -> None:
    net = module()
    initialise(net, He(), 0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    frozen = ("0.weight", "0.bias", "4.weight", "4.bias")
    taught = task(RECIPE, net, frozen=frozen).learner()
    for step in range(3):
        taught.step(batches()[step], step, lr=0.1)
    moved = {
        name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert moved == {"7.weight", "7.bias"}


def test_a_net_learns_what_is_easy() -> None:
    net = module()
    net[6] = nn.Identity()
    initialise(net, He(), 0)
    outcome, _ = run(replace(RECIPE, epochs=30, optimiser=Sgd(lr=0.01)), net)
    assert outcome.progress.epochs[-1].val_top1 == 1


def test_a_loss_that_is_not_finite_stops_at_once() -> None:
    net = module()
    initialise(net, Normal(1e30), 0)
    outcome, events = run(RECIPE, net)
    assert isinstance(outcome, Stopped)
    assert isinstance(outcome.reason, diagnostics.LossNotFinite)
    assert (outcome.reason.epoch, outcome.reason.step, events) == (1, 1, [])


def test_a_flat_loss_stops_after_enough_epochs_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FLAT_STEPS", 9)
    net = module()
    nn.init.zeros_(net[7].weight)
    nn.init.zeros_(net[4].weight)
    outcome, _ = run(replace(RECIPE, epochs=9), net)
    assert isinstance(outcome, Stopped)
    assert isinstance(outcome.reason, diagnostics.LossFlat)
    assert (outcome.reason.epochs, outcome.reason.steps) == (3, 12)
    assert outcome.reason.guess == log(3)


def test_a_loss_that_is_high_by_smoothed_labels_alone_is_not_flat() -> None:
    row = epoch_row(2, 400, 0.1, 2.28, 0.9, 2.28, 0.9, 1.0, 9.0, 1.0)
    progress = Progress((replace(row, epoch=1, step=200), row))
    assert loop.flat_loss(progress, 10, 0.0, 0.9)
    assert loop.least_loss(10, 0.9) == pytest.approx(2.2660, abs=1e-4)
    assert not loop.flat_loss(progress, 10, 0.9, 0.9)
    assert loop.least_loss(10, 0.0) == 0


def test_a_net_that_is_right_beyond_chance_has_learned_whatever_its_training_loss() -> None:
    """Mixed and disguised images keep that near ln(10) = 2.3026; so few images prove little."""
    row = epoch_row(2, 400, 0.1, 2.30, 0.1, 2.29, 0.1, 0.5, 9.0, 1.0)

    def learned(*accuracies: float, val_loss: float = 2.29) -> bool:
        rows = [replace(row, val_top1=top1, val_loss=val_loss) for top1 in accuracies]
        return not loop.flat_loss(Progress(tuple(rows)), 10, 0.0, loop.beyond_chance(100, 1000))

    assert loop.beyond_chance(100, 1000) == pytest.approx(0.1 + 3 * (0.1 * 0.9 / 1000) ** 0.5)
    assert loop.beyond_chance(1, 2) > 1
    assert loop.beyond_chance(1000, 1000) == 1
    assert learned(0.1, 0.28)
    assert learned(0.28, 0.1)
    assert not learned(0.1, 0.128)
    assert learned(0.1, 0.1, val_loss=2.25)


def test_a_recipe_may_say_that_nobody_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FLAT_STEPS", 9)
    net = module()
    nn.init.zeros_(net[7].weight)
    nn.init.zeros_(net[4].weight)
    outcome, _ = run(replace(RECIPE, epochs=5, give_up=False), net)
    assert isinstance(outcome, Finished)


class Normed(nn.Module):
    """A net whose running variances can overflow while its loss stays finite."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.conv(images)).flatten(1))


def test_statistics_that_are_not_finite_stop_a_training_whose_loss_is() -> None:
    net = Normed()
    nn.init.normal_(net.conv.weight, std=1e19)
    saved: list[Progress] = []
    whole = task(replace(RECIPE, epochs=5), net)
    outcome = carry_out(whole, [], saved)
    assert isinstance(outcome, Stopped)
    assert isinstance(outcome.reason, diagnostics.Diverged)
    assert outcome.reason.what == "the weight `norm.running_var`"
    assert (outcome.reason.epoch, outcome.reason.step) == (1, 4)
    assert (outcome.progress, saved) == (Progress(), [])


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda taught: taught.module[4].weight.fill_(-inf), "the weight `4.weight`"),
        (lambda taught: taught.average[0].bias.fill_(nan), "the average of `0.bias`"),
        (
            lambda taught: taught.optimiser.state[taught.module[7].bias]["momentum_buffer"].fill_(
                inf
            ),
            "the momentum of `7.bias`",
        ),
    ],
    ids=["weight", "average", "momentum"],
)
def test_whatever_a_checkpoint_holds_is_looked_at_before_it_is_written(
    spoil: Callable[[Learner], object], what: str
) -> None:
    taught = task(replace(RECIPE, ema=0.9)).learner()
    taught.step(batches()[0], 0, lr=0.1)
    assert unsound(taught) is None
    with torch.no_grad():
        spoil(taught)
    assert unsound(taught) == what


def test_a_loss_scale_that_has_run_out_is_unsound() -> None:
    taught = learner(machine=TrainMachine("cpu", "float16"))
    taught.step(batches()[0], 0, lr=0.1)
    assert unsound(taught) is None
    taught.scaler.update(0.0)
    assert unsound(taught) == "the loss scale"


def test_a_loss_beyond_all_measure_stops_as_one_that_is_not_finite() -> None:
    """What is larger than `MOST` could not be read back from metrics.csv."""
    assert not any(map(is_sound, (nan, inf, 1.1e30)))
    net = module()
    initialise(net, He(), 0)
    with torch.no_grad():
        net[7].weight.mul_(1e34)
    outcome, _ = run(RECIPE, net)
    assert isinstance(outcome, Stopped)
    assert isinstance(outcome.reason, diagnostics.LossNotFinite)
    assert isfinite(outcome.reason.loss)


@pytest.mark.parametrize(
    ("init", "deviation"),
    [(He(), (2 / 576) ** 0.5), (Glorot(), (2 / (576 + 1152)) ** 0.5), (Normal(0.1), 0.1)],
)
def test_first_weights(init: Init, deviation: float) -> None:
    net = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128))
    initialise(net, init, seed=0)
    weight = net[0].weight.detach()
    assert float(weight.std()) == pytest.approx(deviation, rel=0.02)
    assert float(weight.mean()) == pytest.approx(0, abs=deviation / 50)
    assert not net[0].bias.any()
    assert bool((net[1].weight == 1).all())


def test_a_layer_may_begin_otherwise_than_the_recipe_says() -> None:
    net = nn.Sequential(nn.Linear(64, 512), nn.Linear(512, 512), nn.BatchNorm1d(512))
    said = LayerRecipe(init="normal", std=0.005, bias=0.1)
    initialise(net, He(), 0, {"1.weight": said, "1.bias": said})
    deviations = [float(layer.weight.detach().std()) for layer in net[:2]]
    assert deviations == pytest.approx([(2 / 64) ** 0.5, 0.005], rel=0.02)
    assert not net[0].bias.any()
    assert bool((net[1].bias == 0.1).all())
    assert not net[2].bias.any()


def test_the_plateau_drops_three_times_at_most() -> None:
    plateau = Plateau(factor=0.1, drops=3, patience=2)
    assert drops(plateau, [0.1, 0.2, 0.2]) == 0
    assert drops(plateau, [0.1, 0.2, 0.2, 0.1]) == 1
    assert drops(plateau, [0.1, 0.2, 0.2, 0.1, 0.3, 0.3]) == 1
    assert drops(plateau, [0.5] * 40) == 3
    recipe = Recipe(optimiser=Sgd(lr=0.01), schedule=plateau)
    assert learning_rate(recipe, 0, 10, [0.5] * 40) == pytest.approx(1e-5)


def test_one_cycle_rises_and_falls() -> None:
    recipe = Recipe(optimiser=Sgd(lr=2.0), schedule=OneCycle(warm_up=0.3, start=0.1, end=0.01))
    rates = [learning_rate(recipe, step, 101, []) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[30] == pytest.approx(2)
    assert rates[-1] == pytest.approx(0.02)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert learning_rate(replace(recipe, schedule=OneCycle(warm_up=1)), 0, 1, []) > 0
    assert learning_rate(replace(recipe, schedule=Constant()), 5, 9, []) == 2


def test_a_cosine_falls_after_its_warm_up() -> None:
    recipe = Recipe(optimiser=Sgd(lr=2.0), schedule=Cosine(warm_up=0.1, end=0.01))
    rates = [learning_rate(recipe, step, 101, []) for step in range(101)]
    assert rates[:10] == pytest.approx([2 * step / 11 for step in range(1, 11)])
    assert (rates[10], rates[55]) == pytest.approx((2, 1.01))
    assert rates[-1] == pytest.approx(0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(replace(recipe, schedule=Cosine()), 0, 1, []) == 2


def rates(recipe: Recipe, num_steps: int, per_epoch: int) -> list[float]:
    """The rates of a whole training of epochs with so many steps."""
    return [
        learning_rate(recipe, step, num_steps, [0.5] * (step // per_epoch))
        for step in range(num_steps)
    ]


def torchs_rates(
    make: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler], count: int
) -> list[float]:
    """The rates of one of PyTorch's schedulers, over a peak of 2."""
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    scheduler = make(optimiser)
    found = []
    for _ in range(count):
        found += [scheduler.get_last_lr()[0]]
        optimiser.step()
        scheduler.step()
    return found


def test_step_drops_after_the_epochs_it_names() -> None:
    recipe = Recipe(optimiser=Sgd(lr=2.0), schedule=StepSchedule(at=(3, 5), factor=0.2))
    theirs = torchs_rates(lambda o: MultiStepLR(o, [3, 5], gamma=0.2), 7)
    assert rates(recipe, 7, per_epoch=1) == pytest.approx(theirs)
    of_steps = [rate for rate in theirs for _ in range(4)]
    assert rates(recipe, 28, per_epoch=4) == pytest.approx(of_steps)
    by_steps = replace(recipe, epochs=None, steps=7)
    assert rates(by_steps, 7, per_epoch=4) == pytest.approx(theirs)


@pytest.mark.parametrize("power", [0.9, 1, 2])
def test_poly_falls_as_a_power_of_what_is_left(power: float) -> None:
    recipe = Recipe(optimiser=Sgd(lr=2.0), schedule=Poly(power=power))
    theirs = torchs_rates(lambda o: PolynomialLR(o, 40, power), 40)
    assert rates(recipe, 40, per_epoch=4) == pytest.approx(theirs)
    with_end = replace(recipe, schedule=Poly(power, end=0.25))
    assert rates(with_end, 40, 4) == pytest.approx([0.5 + 0.75 * rate for rate in theirs])


@pytest.mark.parametrize(
    "schedule",
    [Constant(), Plateau(patience=2), StepSchedule((2, 3)), Cosine(), Poly(0.9)],
    ids=lambda schedule: type(schedule).__name__,
)
def test_every_schedule_may_begin_with_a_rise(
    schedule: Constant | Plateau | StepSchedule | Cosine | Poly,
) -> None:
    """Of 40 steps ten rise, as `LinearLR` does; then the rate is at its peak and falls."""
    recipe = Recipe(optimiser=Sgd(lr=2.0), schedule=replace(schedule, warm_up=0.25))
    found = rates(recipe, 40, per_epoch=10)
    rising = torchs_rates(lambda o: LinearLR(o, 1 / 11, total_iters=10), 11)
    assert found[:11] == pytest.approx(rising)
    assert found[10:] == sorted(found[10:], reverse=True)
    if isinstance(schedule, Cosine | Poly):
        assert found[10:] == pytest.approx(rates(replace(recipe, schedule=schedule), 30, 10))
    else:
        assert found[10:] == rates(replace(recipe, schedule=schedule), 40, 10)[10:]


def test_adamw_is_pytorchs_and_spares_what_sgd_spares() -> None:
    net, theirs = (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)) for _ in range(2))
    theirs.load_state_dict(net.state_dict())
    chosen = AdamW(lr=0.02, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.5)
    norms = ("0.weight", "0.bias")
    trained = dict(net.named_parameters())
    mine = optimiser(trained, Recipe(optimiser=chosen), undecayed=norms, factors={}, fused=True)
    groups = [
        {"params": [*theirs[1].parameters()], "weight_decay": 0.5},
        {"params": [*theirs[0].parameters()], "weight_decay": 0.0},
    ]
    other = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.9), eps=1e-6)
    x = torch.randn(8, 4)
    for _ in range(3):
        for each, moved in ((net, mine), (theirs, other)):
            moved.zero_grad()
            (each(x) ** 3).sum().backward()
            moved.step()
    for (name, a), b in zip(net.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert mine.defaults["fused"]


@pytest.mark.parametrize("chosen", [Sgd(lr=0.1, weight_decay=0.5), AdamW(lr=0.1)])
def test_a_layer_with_a_factor_takes_the_steps_of_another_rate(chosen: Sgd | AdamW) -> None:
    """All of a step is multiplied: the gradient's share, the momentum's and the decay's."""

    def taught(layers: dict[str, LayerRecipe], rate: float) -> dict[str, torch.Tensor]:
        net = module()
        net[6] = nn.Identity()
        initialise(net, He(), 0)
        recipe = replace(RECIPE, optimiser=chosen)
        frozen = tuple(name for name, _ in net.named_parameters() if not name.startswith("7."))
        learner = replace(task(recipe, net), frozen=frozen, layers=layers).learner()
        for step in range(3):
            learner.step(batches()[step], step, lr=rate)
        return net.state_dict()

    tripled = dict.fromkeys(("7.weight", "7.bias"), LayerRecipe(lr=3))
    mine, theirs, plain = taught(tripled, 0.01), taught({}, 0.03), taught({}, 0.01)
    torch.testing.assert_close(mine, theirs)
    assert not torch.allclose(mine["7.weight"], plain["7.weight"])


def test_a_net_learns_by_adamw() -> None:
    net = module()
    net[6] = nn.Identity()
    initialise(net, He(), 0)
    outcome, _ = run(replace(RECIPE, epochs=15, optimiser=AdamW(lr=0.01)), net)
    assert outcome.progress.epochs[-1].val_top1 == 1


def test_a_machine_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_machine("auto", "bfloat16").device == "cpu"
    for device, precision, mistake in (
        ("cuda", "float32", diagnostics.NoCuda),
        ("cpu", "float16", diagnostics.UnsupportedPrecision),
    ):
        with pytest.raises(UserError) as error:
            choose_machine(device, precision)  # type: ignore[arg-type]
        assert isinstance(error.value.diagnostics[0], mistake)


def test_too_little_memory_is_explained() -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    with pytest.raises(UserError) as error:
        run(RECIPE, Greedy())
    assert isinstance(error.value.diagnostics[0], diagnostics.OutOfMemory)


def test_an_image_that_gets_lost_is_told_and_many_end_the_training(tmp_path: Path) -> None:
    write_images(tmp_path, ("a", "b", "c"), 125)
    recipe = replace(RECIPE, batch=60, epochs=1)
    whole = replace(task(recipe), data=prepare(find_images(tmp_path, 0), (3, 8, 8), None, room=0))
    for lost, ends in ((3, False), (4, True)):
        (tmp_path / whole.data.train.part.name(lost)).unlink()
        (tmp_path / whole.data.train.part.name(lost + 50)).unlink()
        (tmp_path / whole.data.train.part.name(lost + 150)).unlink()
        events: list[Event] = []
        if ends:
            with pytest.raises(UserError, match="images could be read when the training began"):
                carry_out(whole, events)
        else:
            assert isinstance(carry_out(whole, events), Finished)
            named = [each.name for e in events if isinstance(e, ImagesLost) for each in e.lost]
            assert sorted(named) == sorted(
                whole.data.train.part.name(index) for index in (lost, lost + 50, lost + 150)
            )
            (epoch,) = [event.epoch for event in events if isinstance(event, EpochDone)]
            assert epoch.step == 5


def test_held_out_images_that_get_lost_are_told_and_many_end_the_training(tmp_path: Path) -> None:
    write_images(tmp_path, ("a", "b", "c"), 250)
    recipe = replace(RECIPE, batch=60, epochs=1)
    whole = replace(task(recipe), data=prepare(find_images(tmp_path, 0), (3, 8, 8), None, room=0))
    names = [whole.data.val.part.name(index) for index in range(len(whole.data.val))]
    for count, ends in ((1, False), (len(names), True)):
        for name in names[:count]:
            (tmp_path / name).unlink(missing_ok=True)
        events: list[Event] = []
        if ends:
            with pytest.raises(UserError, match="150 images could be read when"):
                carry_out(whole, events)
        else:
            assert isinstance(carry_out(whole, events), Finished)
        told = [each.name for e in events if isinstance(e, ImagesLost) for each in e.lost]
        assert sorted(told) == sorted(names[:count])


@pytest.mark.parametrize(("accumulate", "most"), [(1, 4), (3, 2)])
def test_accuracy_is_measured_on_as_many_images_at_once_as_there_was_room_for(
    accumulate: int, most: int
) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.most = module(), 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if not self.training:
                self.most = max(self.most, len(images))
            return self.inner(images)

    net = Counting()
    run(replace(RECIPE, epochs=1, accumulate=accumulate), net)
    assert (RECIPE.batch, net.most) == (4, most)


def test_a_first_step_that_overflows_in_fp16_leaves_no_trace() -> None:
    taught = learner(net=module(), machine=TrainMachine("cpu", "float16"))
    before = {name: tensor.clone() for name, tensor in taught.trained.items()}
    batch = batches()[0]
    taught.step(batch._replace(images=torch.full_like(batch.images.float(), inf)), 0, lr=0.1)
    for name, parameter in taught.trained.items():
        assert torch.equal(before[name], parameter), name
        assert not taught.optimiser.state[parameter]["momentum_buffer"].any()


def test_bfloat16_trains_with_float32_weights() -> None:
    net = module()
    initialise(net, He(), 0)
    taught = learner(net=net, machine=choose_machine("cpu", "bfloat16"))
    assert 0 < mean_loss(taught.step(batches()[0], 0, lr=0.01)) < 10
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_progress_is_exact_in_json() -> None:
    from vggc.support.records import from_json, to_json

    row = epoch_row(1, 2, 0.1, 1 / 3, 0.5, 2 / 3, 0.25, 1.0, 1e3, 0.7)
    progress = Progress((row,))
    assert from_json(Progress, to_json(progress)) == progress
