"""Every test here runs on each backend."""

from tests.support.backends import backend as backend
