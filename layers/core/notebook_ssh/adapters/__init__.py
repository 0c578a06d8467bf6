"""Reads and writes of AWS services, one module for each service. No decisions."""
