import dataclasses
import json
import typing

import pytest

from neuroexapt.errors import InputError
from neuroexapt.events import EVENT_TYPES, CheckpointSaved, Event, FanOut, event_from_json, event_to_json

SAMPLES = {
    int: 7,
    int | None: 7,
    float: 0.1 + 0.2,
    str: 'a "quoted" → line\nand another',
    bool: True,
    dict[str, int]: {"stem.0": 8, "блок": 3},
    dict[str, float]: {"interval": 1.35, "plateau": 1 / 3},
    dict[str, str]: {"torch": "2.10"},
    dict[str, typing.Any]: {"kind": "Widen", "units": 3, "deep": {"a": [1, None, 2.5]}},
    list[dict[str, typing.Any]]: [{"description": "x", "score": 1e-12}, {}],
}


def sample(cls):
    return cls(**{name: SAMPLES[kind] for name, kind in typing.get_type_hints(cls).items()})


def all_event_classes(cls=Event):
    return [found for sub in cls.__subclasses__() for found in (sub, *all_event_classes(sub))]


def test_every_event_can_be_read_back_by_its_name():
    assert {name for name, cls in EVENT_TYPES.items() if cls.__name__ == name} == set(EVENT_TYPES)
    assert {cls.__name__ for cls in all_event_classes() if cls.__module__ == Event.__module__} == set(EVENT_TYPES)


@pytest.mark.parametrize("cls", EVENT_TYPES.values())
def test_an_event_goes_to_json_and_back_without_loss(cls):
    event = sample(cls)
    record = json.loads(json.dumps(event_to_json(event)))
    assert record["event"] == cls.__name__
    assert event_from_json(record) == event


@pytest.mark.parametrize("cls", EVENT_TYPES.values())
def test_a_time_stamp_beside_the_fields_is_ignored(cls):
    event = sample(cls)
    assert event_from_json({**event_to_json(event), "time": "2030-01-01", "later": [1]}) == event


@pytest.mark.parametrize("cls", EVENT_TYPES.values())
def test_an_event_is_frozen_and_takes_keywords_only(cls):
    event = sample(cls)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        setattr(event, dataclasses.fields(cls)[0].name, None)
    with pytest.raises(TypeError, match="positional"):
        cls(*dataclasses.astuple(event))


@pytest.mark.parametrize("cls", EVENT_TYPES.values())
def test_a_record_that_lacks_a_field_is_refused_with_the_name_of_both(cls):
    needed = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    record = event_to_json(sample(cls))
    del record[needed[-1]]
    with pytest.raises(InputError, match=rf"{cls.__name__}: .*{needed[-1]}.*another version"):
        event_from_json(record)


@pytest.mark.parametrize("record", [{}, {"event": "Miracle"}, {"event": None}, {"event": ["RunStarted"]}])
def test_a_record_of_no_known_event_is_refused(record):
    with pytest.raises(InputError, match=r"unknown event .*known are RunStarted, "):
        event_from_json(record)


class Notebook:
    """A sink that remembers."""

    def __init__(self):
        self.events = []

    def send(self, event):
        self.events.append(event)

    def rewind(self, num_events):
        del self.events[num_events:]


def test_a_fan_out_tells_every_sink_in_order_and_counts():
    sinks = [Notebook(), Notebook()]
    fan_out = FanOut(sinks)
    events = [CheckpointSaved(epoch=i, path=str(i), is_best=False) for i in range(5)]
    for event in events:
        fan_out.send(event)
    assert fan_out.num_sent == 5
    assert [sink.events for sink in sinks] == [events, events]


def test_a_fan_out_that_goes_back_takes_every_sink_along():
    sinks = [Notebook(), Notebook()]
    fan_out = FanOut(sinks)
    for epoch in range(5):
        fan_out.send(CheckpointSaved(epoch=epoch, path="", is_best=False))
    fan_out.rewind(2)
    assert fan_out.num_sent == 2
    assert [len(sink.events) for sink in sinks] == [2, 2]
    fan_out.send(CheckpointSaved(epoch=9, path="", is_best=True))
    assert fan_out.num_sent == 3


def test_a_fan_out_without_sinks_only_counts():
    fan_out = FanOut()
    fan_out.send(CheckpointSaved(epoch=1, path="", is_best=False))
    fan_out.rewind(0)
    assert fan_out.num_sent == 0
