import os
from urllib.parse import parse_qs, unquote, urlsplit

_url = urlsplit(os.environ["DATABASE_URL"])
_query = parse_qs(_url.query)

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.lstrip("/"),
        "USER": unquote(_url.username or ""),
        "PASSWORD": unquote(_url.password or ""),
        "HOST": _url.hostname or _query.get("host", [""])[0],
        "PORT": _url.port or _query.get("port", [""])[0],
    }
}
INSTALLED_APPS = ["examples.django_shop.apps.Shop"]
MIGRATION_MODULES = {"shop": None}
ROOT_URLCONF = "examples.django_shop.urls"
SECRET_KEY = os.environ.get("SECRET_KEY", "for this example only")
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
USE_TZ = True
