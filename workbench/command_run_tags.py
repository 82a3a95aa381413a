"""`workbench runs tag`: words on a run, to find it again."""

from __future__ import annotations

import argparse

from workbench.command_arguments import add_verb, workspace_of
from workbench.terminal_output import note, say, write_json

SCHEMA = 1


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    tag = add_verb(verbs, "tag", "put tags on a run, take them away, or say which it has", run_tag)
    tag.add_argument("run", metavar="RUN")
    tag.add_argument("tags", nargs="*", metavar="TAG", help="put on; without any, the tags are printed")
    tag.add_argument("--remove", action="append", default=[], metavar="TAG", help="take away; may be repeated")


def run_tag(args: argparse.Namespace) -> int:
    """Change the tags of a run, or print them, one a line."""
    from workbench.run_list import find_run
    from workbench.run_tags import change_tags, tags_of, typed_tags

    changes = bool(args.tags or args.remove)
    run = find_run(workspace_of(args, writable=changes), args.run)
    tags = change_tags(run, typed_tags(" ".join(args.tags)), args.remove) if changes else tags_of(run.folder)
    if args.json:
        write_json({"schema": SCHEMA, "run": run.id, "tags": list(tags)})
    elif changes:
        note(f"{run.id}: {', '.join(tags) or 'no tags'}")
    else:
        for tag in tags:
            say(tag)
    return 0
