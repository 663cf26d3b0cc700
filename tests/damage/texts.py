"""Mistaken profiles, recipes and mergekit files."""

from __future__ import annotations

from tests.damage.case import Case, content, cut, replaced

PROFILE = "profile.toml"
DOCTOR = f"doctor {PROFILE} --limit 1"
AT = r"profile profile\.toml: "
READ = "merge recipe.toml --out out"
IMPORT = "import mergekit.yaml --to imported.toml"
YAML = r"mergekit\.yaml"


def _profile(name: str, old: str, new: str, says: str, command: str = DOCTOR) -> Case:
    return Case(name, replaced(PROFILE, old, new), says, command)


def _recipe(text: str, says: str) -> Case:
    """A recipe on the command line; quoted, since :mod:`shlex` takes commands apart."""
    quoted = "'" + text.replace("'", "'\"'\"'") + "'"
    return Case(text[:40], lambda at: None, says, f"plan {quoted} --layers 6")


def _file(name: str, text: str | bytes, says: str, ending: str = "toml") -> Case:
    return Case(
        name, content(f"recipe.{ending}", text), rf"recipe\.{ending}.*{says}", f"merge recipe.{ending} --out out"
    )


def _mergekit(name: str, old: str, new: str, says: str) -> Case:
    return Case(name, replaced("mergekit.yaml", old, new), f"{YAML}.*{says}", IMPORT)


PROFILES = (
    Case("profile is missing", lambda at: None, "no profile 'nowhere.toml'", "doctor nowhere.toml"),
    Case("profile is a folder", lambda at: None, "no profile 'models'", "doctor models"),
    Case("profile is empty", content(PROFILE, ""), AT, DOCTOR),
    Case("profile is cut off", cut(PROFILE, 0.4), AT, DOCTOR),
    Case("profile in Latin-1", content(PROFILE, 'title = "\xe9"'.encode("latin-1")), f"{AT}.*TOML", DOCTOR),
    Case("profile with a zero byte", content(PROFILE, b'name = "a\0"'), f"{AT}.*TOML", DOCTOR),
    Case("profile nested deep", content(PROFILE, "a = " + "[" * 100_000), AT, DOCTOR),
    Case("a key twice", replaced(PROFILE, "[experts]", '[experts]\nmath = "x"'), f"{AT}.*TOML", DOCTOR),
    _profile("unknown key", "[swap]", "[swpa]", f"{AT}unknown key swpa .*'swap'"),
    _profile(
        "unknown key in a column", 'metric = "acc"', 'metrc = "acc"', f"{AT}.*unknown key benchmarks.*metrc .*'metric'"
    ),
    _profile("no name", 'name = "mine"', "", f"{AT}name"),
    _profile("a name that leaves the folder", '"mine"', '"../mine"', f"{AT}name"),
    _profile("a name of letters and a slash", '"mine"', '"a/b"', f"{AT}name"),
    _profile("name is a number", '"mine"', "7", f"{AT}name"),
    _profile("no base", 'base = "models/base"', "", rf"{AT}.*\[experts\] names no base"),
    _profile("an expert is a number", '"models/math"', "7", f"{AT}experts.math"),
    _profile("an expert is empty", '"models/math"', '""', "expert math: ''"),
    _profile("an expert is nowhere", "models/math", "./models/nowhere", "expert math.*models/nowhere"),
    _profile("an expert with a zero byte", "models/math", "models/\\u0000", "math"),
    _profile(
        "an expert that ships, of no name", "models/math", "embedded:nothing", "expert math.*embedded:nothing|nothing"
    ),
    _profile(
        "an expert that leaves those that ship", "models/math", "embedded:../../..", r"expert math.*embedded:\.\./"
    ),
    _profile("an expert is a file", "models/math", "./models/math/config.json", "expert math.*config.json"),
    _profile("an expert is a GGUF file that is none", "models/math", "before.gguf", r"expert math.*before\.gguf"),
    _profile("no benchmarks", "benchmarks.", "experts.", AT),
    _profile(
        "a benchmark without columns",
        'columns = [{ name = "mmlu", task = "real_mmlu", metric = "acc" }]',
        "columns = []",
        f"{AT}benchmarks.mmlu.columns",
    ),
    _profile("a margin of 5", "[benchmarks.mmlu]", "[benchmarks.mmlu]\nmargin = 5", f"{AT}benchmarks.mmlu.margin"),
    _profile(
        "a margin that is no number",
        "[benchmarks.mmlu]",
        "[benchmarks.mmlu]\nmargin = nan",
        f"{AT}benchmarks.mmlu.margin",
    ),
    _profile("a column of another benchmark", '"mmlu", task', '"mgsm x", task', f"{AT}.*mgsm x"),
    _profile("a column twice", '"belebele sw", task', '"mgsm sw", task', f"{AT}.*mgsm sw"),
    _profile("a column without a name", 'name = "mmlu"', 'name = ""', AT),
    _profile("a task that is not there", "real_mmlu", "real_mmul", "real_mmul"),
    _profile(
        "a metric that is not there",
        'task = "real_mmlu", metric = "acc"',
        'task = "real_mmlu", metric = "bcc"',
        "real_mmlu.*bcc",
    ),
    _profile("a filter that is not there", 'filter = "answer"', 'filter = "anser"', "real_mgsm_cot_sw.*anser"),
    _profile(
        "a field that is not there",
        'task = "real_mmlu", metric = "acc"',
        'task = "real_mmlu", metric = "acc", where = "hard"',
        "mmlu.*hard",
    ),
    _profile("a corpus metric that is not there", '["chrf++"]', '["bleu"]', "real_flores_en-sw.*bleu"),
    _profile("a swap of texts", "bottom = 1", 'bottom = "one"', f"{AT}swap.bottom"),
    _profile("a swap below zero", "bottom = 1", "bottom = -1", "bottom", "plan layer-swap --profile profile.toml"),
    _profile("a swap that does not fit", "bottom = 1", "bottom = 9", "9", "plan layer-swap --profile profile.toml"),
    _profile("a swap of three transitions", "transition = [1, 1]", "transition = [1, 1, 1]", f"{AT}swap.transition"),
    _profile("tasks that are nowhere", 'tasks = "real"', 'tasks = "nowhere"', "nowhere"),
    _profile("data that is nowhere", 'data = "data"', 'data = "nowhere"', "nowhere"),
    _profile("an unknown dtype", 'data = "data"', 'data = "data"\ndtype = "float8"', f"{AT}dtype"),
    _profile("an unknown device", 'data = "data"', 'data = "data"\ndevice = "abacus"', "device 'abacus'"),
    _profile("a batch of 0", 'data = "data"', 'data = "data"\nbatch_size = 0', f"{AT}batch_size"),
)

RECIPES = (
    _recipe("layer-swop", "layer-swop.*layer-swap"),
    _recipe("", "is no recipe"),
    _recipe("layer-swap(", "is no recipe"),
    _recipe("layer-swap(bottom=)", "is no recipe"),
    _recipe("layer-swap(botom=1)", "botom.*bottom"),
    _recipe("layer-swap(bottom=-1)", "bottom"),
    _recipe("layer-swap(bottom='a')", "bottom"),
    _recipe("layer-swap(bottom=1.5)", "bottom"),
    _recipe("layer-swap(bottom=9)", "bottom|layers"),
    _recipe("layer-swap(bottom=4, top=4)", "layers"),
    _recipe("layer-swap(bottom=10**9)", "layer-swap"),
    _recipe("layer-swap(transition='none')", "transition"),
    _recipe("layer-swap(weights=(0, 0))", "weights"),
    _recipe("layer-swap(weights=5)", "weights"),
    _recipe("layer-swap(outer='top')", "outer"),
    _recipe("layer-swap(outer=['math'])", "outer"),
    _recipe("layer-swap(math=3)", "math|3"),
    _recipe("ties(density=0)", "density"),
    _recipe("ties(density='half')", "density"),
    _recipe("ties(trim='all')", "trim"),
    _recipe("ties(lambda_='x')", "lambda"),
    _recipe("dare-ties(seed='x')", "seed"),
    _recipe("soup(weights={'math': -1})", "math"),
    _recipe("soup(weights={'math': 1e400})", "math"),
    _recipe("soup(weights=[])", "weights|expert"),
    _recipe("soup(weights={'a b': 1})", "a b"),
    _recipe("slerp(t=2)", "t is 2"),
    _recipe("slerp(t='x')", "t"),
    _recipe("expert('')", "expert|name"),
    _recipe("expert(3)", "expert|3"),
    _recipe("slots({})", "slots|layers"),
    _recipe("slots({'layers.0-999999999': 'math'})", "layers"),
    _recipe("slots({1: 'math'})", "slots|1"),
    _recipe("slots([1])", "slots"),
    _recipe(
        "slots({'layers.0-5': {'operation': 'melt', 'sources': {'math': 1}}, 'embed, norm, head': 'math'})", "melt"
    ),
    _recipe(
        "slots({'layers.0-5': {'operation': 'ties', 'sources': {'math': 1}, 'densty': 2}, 'embed': 'math'})",
        "ties.*densty",
    ),
    _recipe("placement(kind='sideways')", "sideways"),
    _recipe("__import__('os').system('id')", "is no recipe"),
    _recipe("layer-swap(bottom=__import__('os'))", "layer-swap"),
    _recipe("layer-swap(**{'bottom': 1})", r"\*\*"),
    _recipe("layer-swap(" + "(" * 5000 + ")" * 5000 + ")", "is no recipe|layer-swap"),
    _recipe("layer-swap(bottom=" + "9" * 5000 + ")", "layer-swap|bottom"),
    _recipe("layer-swap(bottom=1\0)", "is no recipe"),
    Case("no layers", lambda at: None, "layers", "plan layer-swap --layers 0"),
    Case("a billion layers", lambda at: None, "1000000000 layers", "plan layer-swap --layers 1000000000"),
    Case("layers beside experts", lambda at: None, "--layers", "plan layer-swap --layers 6 --base models/base"),
    Case(
        "deeper than the models",
        lambda at: None,
        "layers",
        "merge 'layer-swap(bottom=20)' --expert math=models/math --expert language=models/language --out out",
    ),
    Case(
        "an expert that is not given",
        lambda at: None,
        "maths.*math",
        "merge expert(maths) --expert math=models/math --expert language=models/language --out out".replace(
            "expert(maths)", "'expert(\"maths\")'"
        ),
    ),
)

RECIPE_FILES = (
    Case("file is missing", lambda at: None, r"nowhere\.toml", "merge nowhere.toml --out out"),
    Case("file is a folder", lambda at: (at / "folder.toml").mkdir(), r"folder\.toml", "merge folder.toml --out out"),
    _file("empty", "", "table|recipe"),
    _file("no TOML", "recipe = ", ""),
    _file("in UTF-16", "recipe = 'soup'".encode("utf-16"), ""),
    _file("nested deep", "a = " + "[" * 100_000, ""),
    _file("unknown key", "recipe = 'soup'\nexpert = 1", "expert"),
    _file("experts are a list", "recipe = 'soup'\nexperts = ['a']", "experts"),
    _file("an expert is a number", "recipe = 'soup'\nexperts = {math = 3}", "experts"),
    _file(
        "an expert is nowhere",
        "recipe = 'soup'\nexperts = {math = './nowhere', language = 'models/language'}",
        "nowhere",
    ).__class__(
        "an expert is nowhere",
        content("recipe.toml", "recipe = 'soup'\nexperts = {math = './nowhere', language = 'models/language'}"),
        "math.*nowhere",
        READ,
    ),
    _file("unknown dtype", "recipe = 'soup'\ndtype = 'int4'", "dtype"),
    _file("dtype is a list", "recipe = 'soup'\ndtype = ['float32']", "dtype"),
    _file("recipe is a number", "recipe = 3", "recipe"),
    _file("table without kind", "[recipe]\nbottom = 3", "kind"),
    _file("kind is a number", "[recipe]\nkind = 3", "kind"),
    _file("unknown argument", "[recipe]\nkind = 'layer-swap'\nbotom = 3", "botom"),
    _file("a mergekit file", "merge_method = 'ties'", "mergekit"),
    _file("YAML: no table", "- 1", "table", "yaml"),
    _file("YAML: a number as key", "1: 2", "table", "yaml"),
    _file("YAML: an object", "recipe: !!python/object/apply:os.system ['id']", "constructor|tag", "yaml"),
    _file("YAML: a tab", "recipe:\n\tsoup: 1", "", "yaml"),
    _file("YAML: nested deep", "[" * 100_000, "", "yaml"),
    _file(
        "YAML: laughs a billion times",
        "\n".join(
            [
                "a0: &a0 [x, x]",
                *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)),
            ]
        ),
        "",
        "yaml",
    ),
    _file("YAML: a loop", "recipe: &a {kind: soup, weights: *a}", "", "yaml"),
    _file("YAML: a key twice", "recipe: soup\nrecipe: ties", "recipe", "yaml"),
)

MERGEKIT = (
    Case("empty", content("mergekit.yaml", ""), YAML, IMPORT),
    Case("missing", lambda at: None, r"nowhere\.yaml", "import nowhere.yaml"),
    Case("no YAML", content("mergekit.yaml", "a: [1"), YAML, IMPORT),
    Case("nested deep", content("mergekit.yaml", "{a: " * 50_000), YAML, IMPORT),
    Case("in Latin-1", content("mergekit.yaml", "a: \xe9".encode("latin-1")), YAML, IMPORT),
    _mergekit("unknown method", "linear", "magic", "merge_method"),
    _mergekit("unknown key", "dtype:", "dtpe:", "dtpe"),
    _mergekit("unknown dtype", "float32", "float8", "dtype"),
    _mergekit("unknown model", "models/math", "models/maths", "").__class__(
        "an unknown expert", lambda at: None, f"{YAML}.*models/x", f"{IMPORT} --expert x=models/x"
    ),
    _mergekit("a gap", "[2, 6]", "[3, 6]", r"slices\[1\].*layer_range"),
    _mergekit("an overlap", "[2, 6]", "[1, 6]", r"slices\[1\].*layer_range"),
    _mergekit("backwards", "[0, 2]", "[2, 0]", r"slices\[0\].*layer_range"),
    _mergekit("a range of one number", "[0, 2]", "[2]", r"slices\[0\].*layer_range"),
    _mergekit("a range of texts", "[0, 2]", "[a, b]", r"slices\[0\].*layer_range"),
    _mergekit("a billion layers", "[2, 6]", "[2, 1000000000]", "layer"),
    _mergekit("shorter than the models", "[2, 6]", "[2, 5]", "6"),
    _mergekit("a weight below zero", "weight: 1.0", "weight: -1.0", "weight"),
    _mergekit("a weight that is no number", "weight: 1.0", "weight: .nan", "weight"),
    _mergekit("an infinite weight", "weight: 1.0", "weight: .inf", "weight"),
    _mergekit("a weight of 0", "weight: 1.0", "weight: 0.0", "weight"),
    _mergekit("a list of weights", "weight: 1.0", "weight: [0, 1]", "weight"),
    _mergekit("no weight", "parameters: {weight: 1.0}", "parameters: {}", "weight"),
    _mergekit(
        "no sources",
        "- sources:\n  - {model: models/language, layer_range: [0, 2], parameters: {weight: 1.0}}",
        "- sources: []",
        r"slices\[0\].sources",
    ),
    _mergekit("model is a number", "models/math", "7", "model"),
    _mergekit("slices and models", "dtype:", "models: [{model: a}]\ndtype:", "slices"),
)
