"""Layers of settings: flag > environment > --config > --preset > user file > default."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodecli.config import preset_names, read_preset, resolve, user_config_path
from decodecli.errors import UsageError
from decodecli.settings import SamplingParams

ORDER = ("flag", "env", "config", "preset", "user")
SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def layers(tmp_path, monkeypatch):
    """`layers(flag={…}, env={…}, config={…}, preset={…}, user={…})`: what they come to."""
    from decodecli import config

    presets = {}
    monkeypatch.setattr(config, "read_preset", lambda name: dict(presets[name]))

    def toml(values) -> str:
        def spell(value):
            return str(value).lower() if isinstance(value, bool) else repr(value)

        return "".join(f"{name} = {spell(value)}\n" for name, value in values.items())

    def run(flag=None, env=None, config=None, preset=None, user=None):
        flags = dict(flag or {})
        environ = {f"DECODECLI_{k.upper()}": str(v) for k, v in (env or {}).items()}
        if config is not None:
            (tmp_path / "c.toml").write_text(toml(config))
            flags["config"] = str(tmp_path / "c.toml")
        if preset is not None:
            presets["mine"] = {"description": "mine", **preset}
            flags["preset"] = "mine"
        path = user_config_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(toml(user or {}))
        return resolve(flags, environ)

    return run


@pytest.mark.parametrize("name", ["top_k", "temperature", "min_p", "seed", "max_new_tokens"])
def test_the_highest_layer_that_has_a_value_gives_it(layers, name):
    spread = {
        "top_k": (0, 1, 2, 3, 4), "temperature": (0.5, 0.25, 2.0, 3.0, 4.0),
        "min_p": (0.0, 0.1, 0.2, 0.3, 0.4), "seed": (0, 1, 2, 3, 4), "max_new_tokens": (5, 1, 2, 3, 4),
    }[name]  # fmt: skip
    values = dict(zip(ORDER, spread, strict=True))
    for count in range(len(ORDER) + 1):
        for present in itertools.combinations(ORDER, count):
            found = layers(**{layer: {name: values[layer]} for layer in present})
            source = present[0] if present else "default"
            assert found.sources[name] == source
            expected = values[source] if present else getattr(SamplingParams(), name)
            assert found.values[name] == expected
            assert type(found.values[name]) is type(expected)


@SHARED
@given(
    st.dictionaries(
        st.sampled_from(ORDER),
        st.fixed_dictionaries(
            {},
            optional={
                "top_k": st.integers(0, 3),
                "top_p": st.sampled_from([0.5, 0.9, 1.0]),
                "min_p": st.sampled_from([0.0, 0.1]),
                "quiet": st.booleans(),
                "bos": st.booleans(),
                "candidates": st.integers(1, 3),
                "tables": st.sampled_from(["full", "line", "none"]),
            },
        ),
    )
)
def test_layers_of_any_values_merge_key_by_key(layers, given_layers):
    found = layers(**given_layers)
    default = layers()
    for name in ("top_k", "top_p", "min_p", "quiet", "bos", "candidates", "tables"):
        having = [layer for layer in ORDER if name in given_layers.get(layer, {})]
        if having:
            assert found.sources[name] == having[0]
            assert found.values[name] == given_layers[having[0]][name]
        else:
            assert found.sources[name] == "default"
            assert found.values[name] == default.values[name]


def test_every_value_has_a_source(layers):
    found = layers(env={"top_k": 3})
    assert set(found.values) == set(found.sources)
    assert {"temperature", "seed", "model", "device", "candidates", "tables"} <= set(found.sources)


@pytest.mark.parametrize("layer", ORDER)
def test_greedy_is_temperature_zero_in_every_layer(layers, layer):
    lower = ORDER[ORDER.index(layer) + 1 :]
    found = layers(**{layer: {"greedy": True}}, **{name: {"temperature": 0.7} for name in lower})
    assert found.values["temperature"] == 0
    assert found.sources["temperature"] == layer
    assert found.sampling().greedy


@pytest.mark.parametrize("layer", ORDER)
def test_greedy_gives_way_to_a_temperature_of_a_higher_layer(layers, layer):
    for higher in ORDER[: ORDER.index(layer)]:
        found = layers(**{layer: {"greedy": True}, higher: {"temperature": 0.7}})
        assert found.values["temperature"] == 0.7
        assert found.sources["temperature"] == higher
        assert not found.sampling().greedy


@pytest.mark.parametrize("layer", ORDER)
def test_greedy_beside_another_temperature_in_one_layer_is_refused(layers, layer):
    with pytest.raises(UsageError, match=r"greedy.*0\.7"):
        layers(**{layer: {"greedy": True, "temperature": 0.7}})
    assert layers(**{layer: {"greedy": True, "temperature": 0.0}}).sampling().greedy
    assert not layers(**{layer: {"greedy": False, "temperature": 0.7}}).sampling().greedy


@pytest.mark.parametrize(
    ("higher", "lower"), [(a, b) for i, a in enumerate(ORDER) for b in ORDER[i + 1 :]]
)
def test_greedy_false_in_a_higher_layer_takes_it_back(layers, higher, lower):
    found = layers(**{higher: {"greedy": False}, lower: {"greedy": True}})
    assert not found.sampling().greedy


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("False", False)],
)
def test_switches_in_the_environment(layers, text, value):
    found = layers(env={"quiet": text})
    assert found.values["quiet"] is value
    assert found.sources["quiet"] == "env"


def test_numbers_in_the_environment_become_numbers(layers):
    found = layers(env={"temperature": "1e-3", "top_k": "7"})
    assert found.values["temperature"] == 0.001
    assert found.values["top_k"] == 7


def test_a_variable_that_is_no_option_is_a_notice_not_an_error(layers):
    found = resolve({}, {"DECODECLI_TEMPRATURE": "1", "OTHER": "x", "DECODECLI_DEBUG": "1"})
    assert len(found.notices) == 1
    assert "DECODECLI_TEMPRATURE" in found.notices[0]
    assert "DECODECLI_TEMPERATURE" in found.notices[0]
    assert resolve({}, {"OTHER": "x"}).notices == ()


def test_a_key_of_the_config_is_checked_though_a_flag_goes_before_it(layers):
    with pytest.raises(UsageError, match="top_k"):
        layers(flag={"top_k": 3}, config={"top_k": "many"})


def test_a_flag_may_replace_a_value_out_of_range(layers):
    assert layers(flag={"top_p": 0.9}, user={"top_p": 7.0}).sampling().top_p == 0.9


@pytest.mark.parametrize("name", ["trust_remote_code", "allow_pickle"])
def test_trust_in_a_models_files_is_the_users_word_alone(layers, name):
    for value in (True, False):
        with pytest.raises(UsageError, match=f"sets {name}"):
            layers(config={name: value})
    for layer in ("flag", "env", "user"):
        found = layers(**{layer: {name: True}})
        assert found.values[name] is True
        assert found.sources[name] == layer


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "top_k = " + "9" * 10_000])
def test_a_file_that_no_parser_can_read_is_refused(tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match="not valid TOML"):
        resolve({"config": str(tmp_path / "c.toml")}, {})


def test_no_user_file_is_no_error():
    assert not user_config_path().exists()
    assert resolve({}, {}).sources["top_k"] == "default"


def test_the_users_file_is_in_the_configuration_folder():
    assert user_config_path().parts[-2:] == ("decodecli", "config.toml")


def test_a_message_names_where_the_value_came_from(layers):
    with pytest.raises(UsageError, match="DECODECLI_TOP_P"):
        layers(env={"top_p": 2}).sampling()
    with pytest.raises(UsageError, match="config"):
        layers(config={"top_p": 2.0}).sampling()
    with pytest.raises(UsageError, match="user"):
        layers(user={"top_p": 2.0}).sampling()
    with pytest.raises(UsageError, match="preset"):
        layers(preset={"top_p": 2.0}).sampling()
    with pytest.raises(UsageError) as error:
        layers(flag={"top_p": 2.0}).sampling()
    assert "(from" not in error.value.message


def test_the_contracts_presets_are_shipped_and_valid():
    names = preset_names()
    assert names[:5] == ["greedy", "precise", "balanced", "creative", "chaotic"]
    for name in names:
        values = read_preset(name)
        assert values.pop("description")
        assert values
        SamplingParams(**values)
    assert read_preset("chaotic")["temperature"] == 20
    assert SamplingParams(temperature=read_preset("greedy")["temperature"]).greedy


def test_settings_are_not_read_from_the_environment_twice(monkeypatch):
    monkeypatch.setenv("DECODECLI_TOP_K", "5")
    assert resolve({}).values["top_k"] == 5
    assert resolve({}, {}).values["top_k"] == 0, "the environment given is the one that counts"
