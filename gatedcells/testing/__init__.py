"""Tools for testing implementations: tolerances derived from torch's own error, and golden test vectors."""

from gatedcells.testing.budget import assert_close_in_float64 as assert_close_in_float64
from gatedcells.testing.budget import assert_within_budget as assert_within_budget
from gatedcells.testing.budget import budget as budget
from gatedcells.testing.golden import GoldenCase as GoldenCase
from gatedcells.testing.golden import assert_golden as assert_golden
from gatedcells.testing.golden import golden_cases as golden_cases
