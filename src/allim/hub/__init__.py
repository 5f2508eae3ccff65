"""The notification hub: notifications, their deliveries, and the API over them."""
