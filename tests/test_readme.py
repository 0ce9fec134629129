import re
from pathlib import Path


def test_the_example_of_the_readme_runs(capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    exec(compile(example, "README.md", "exec"), {})
    assert "GroupNorms" in capsys.readouterr().out
