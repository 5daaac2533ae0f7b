"""`vault-ml model verify`: whether what lies in a repository keeps its promises."""

from typing import Annotated

import typer

from consumer.errors import SetupError
from modelops.site_options import DEFAULT_REPOSITORY, RepositoryOption, open_repository

app = typer.Typer()


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="A model, else all of them.", show_default=False)] = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
) -> None:
    """Check configurations, versions, plans, labels and rollouts; says each problem, changes nothing."""
    from modelops.models_extra import require_models_extra

    require_models_extra()
    from modelops.verify import verify as problems_in

    place = open_repository(repository)
    problems = problems_in(place, None if name is None else [name])
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    models = [name] if name is not None else place.models()
    if not models:
        raise SetupError(
            f"There is no model in {place.location}: publish one with `vault-ml model export`, or say "
            "where it is with --repository."
        )
    print(f"{', '.join(models)}: nothing is wrong in {place.location}")
