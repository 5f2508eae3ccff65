"""The same shop with Django.

export DATABASE_URL="$(allim db url)" DJANGO_SETTINGS_MODULE=examples.django_shop.settings
python -m django migrate --run-syncdb
python -m django runserver
"""
