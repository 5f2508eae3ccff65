from django.urls import path

from examples.django_shop.views import sign_up

urlpatterns = [path("users", sign_up)]
