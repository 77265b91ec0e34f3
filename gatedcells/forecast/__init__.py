"""Forecasting: hourly load with a command, your own series with `Forecaster`."""

from gatedcells.forecast.errors import ForecastError as ForecastError
from gatedcells.forecast.forecaster import Forecaster as Forecaster
from gatedcells.forecast.forecaster import NotFitted as NotFitted
from gatedcells.forecast.panel_report import FrameReport as FrameReport
from gatedcells.forecast.panel_report import FrameWarning as FrameWarning
