"""Texts that are paid for: SMS and Alimtalk jobs, tenants and their money, opt-outs."""
