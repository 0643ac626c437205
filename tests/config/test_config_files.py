import pytest

from neuroexapt.config import DataConfig, GrowConfig, apply_overrides, from_json, load_config, put
from neuroexapt.errors import ConfigError


def test_the_same_settings_come_out_of_yaml_toml_and_json(tmp_path):
    (tmp_path / "a.yml").write_text("seed: 3\ntrain: {learning_rate: 3e-3, clip_norm: null}\ndata: {source: x}\n")
    (tmp_path / "a.toml").write_text("seed = 3\n[train]\nlearning_rate = 3e-3\n[data]\nsource = 'x'\n")
    (tmp_path / "a.JSON").write_text('{"seed": 3, "train": {"learning_rate": 3e-3}, "data": {"source": "x"}}')
    yml, toml, json = (load_config(GrowConfig, tmp_path / name) for name in ("a.yml", "a.toml", "a.JSON"))
    assert toml == json
    assert yml == {**json, "train": {"learning_rate": 0.003, "clip_norm": None}}


@pytest.mark.parametrize("content", [b"", b"\n# nothing yet\n", b"\xef\xbb\xbfseed: 0\n"])
def test_an_empty_file_and_a_byte_order_mark_are_fine(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    assert from_json(GrowConfig, load_config(GrowConfig, tmp_path / "a.yaml")) == GrowConfig()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-3", 3e-3),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        ("3", 3),
        ("3.5", 3.5),
        ("", None),
        ("null", None),
        ("true", True),
        ("word", "word"),
        ("'3'", "3"),
        ("[Widen, InsertLayer]", ["Widen", "InsertLayer"]),
        ("{a: 1}", {"a": 1}),
        ("a=b", "a=b"),
        ("package.module:function", "package.module:function"),
        ("3e", "3e"),
    ],
)
def test_a_value_is_read_as_people_mean_it(text, value):
    assert apply_overrides({}, [f"a.b={text}"]) == {"a": {"b": value}}


def test_overrides_go_in_order_and_leave_what_they_were_given_alone():
    record = {"train": {"epochs": 3}}
    assert apply_overrides(record, ["train.epochs=4", "train.epochs=5", " seed =1"]) == {
        "train": {"epochs": 5},
        "seed": 1,
    }
    assert record == {"train": {"epochs": 3}}


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("epochs", r"--set: found 'epochs', needed key=value, for example train\.epochs=10\."),
        ("=3", r"found '=3', needed key=value"),
        ("seed.x=3", r"seed\.x: found seed = 1, which is a value, needed a section"),
        ("a=[", r"--set: a: found '\[', which is no YAML value \(line 1, column 2: "),
        ("a={x: 1, x: 2}", r"found the key 'x' twice"),
    ],
)
def test_an_assignment_that_cannot_be_made_says_why(assignment, sentence):
    with pytest.raises(ConfigError, match=sentence):
        apply_overrides({"seed": 1}, [assignment])


def test_put_makes_the_sections_that_are_missing():
    record = {}
    put(record, "a.b.c", 1)
    put(record, "a.d", 2)
    assert record == {"a": {"b": {"c": 1}, "d": 2}}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"sed": 1}, r"unknown key sed: did you mean seed\?$"),
        ({"train": {"lerning_rate": 1}}, r"unknown key train\.lerning_rate: did you mean train\.learning_rate\?$"),
        (
            {"zzz": 1},
            r"unknown key zzz: known are seed, device, data, augment, model, train, morphogenesis, evidence\.$",
        ),
        ({1: 1}, r"unknown key 1: known are"),
        ({"data": 3}, r"data: found 3, needed a section of key: value pairs\.$"),
        ({"data": None}, r"data: found None, needed a section"),
        ({"seed": -1}, r"^seed: found -1, needed a number of at least 0\.$"),
        ({"device": 0}, r"device: found 0, needed text \(quote a number that is meant as text\)\.$"),
        ({"train": {"momentum": 1}}, r"train\.momentum: found 1, needed a number less than 1\.$"),
        ({"train": {"schedule": "cosin"}}, r"needed 'cosine' or 'constant': did you mean 'cosine'\?$"),
        ({"train": {"epochs": "x" * 500}}, r"found 'x{79}…, needed a whole number\.$"),
        ({"train": {"epochs": 0, "batch_size": 0}}, r"train\.epochs: .*; train\.batch_size: "),
        ({"morphogenesis": {"kinds": "Widen"}}, r"needed a list, such as \[first, second\]\.$"),
        ({"morphogenesis": {"last_epoch": 1}}, r"morphogenesis: found last_epoch 1 before first_epoch 2"),
    ],
)
def test_a_problem_says_where_what_was_found_and_what_was_needed(record, sentence):
    with pytest.raises(ConfigError, match=sentence):
        from_json(GrowConfig, record)


def test_where_it_came_from_is_said_first():
    with pytest.raises(ConfigError, match=r"^run 7: limit: found 0, needed"):
        from_json(DataConfig, {"limit": 0}, where="run 7")


def test_a_file_that_does_not_fit_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {epochs: 0}")
    with pytest.raises(ConfigError, match=r"a\.yaml: train\.epochs: found 0, needed a number of at least 1\.$"):
        load_config(GrowConfig, tmp_path / "a.yaml")


def test_a_date_in_a_file_is_text_and_can_be_overridden(tmp_path):
    (tmp_path / "a.yaml").write_text("model: {options: {day: 2020-01-02}}")
    record = apply_overrides(load_config(GrowConfig, tmp_path / "a.yaml"), ["seed=2"])
    assert from_json(GrowConfig, record).model.options == {"day": "2020-01-02"}
