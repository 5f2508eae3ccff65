from contextlib import ExitStack

from django.apps import AppConfig

from allim import waking


class Shop(AppConfig):
    name = "examples.django_shop"
    label = "shop"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import atexit
        import os

        # Relays hear of every commit at once; without this they look every so often.
        stack = ExitStack()
        stack.enter_context(waking(os.environ["DATABASE_URL"]))
        atexit.register(stack.close)
