"""Which APIs a simulated gateway can speak, by the type that the settings name."""

from collections.abc import Mapping

from demo.simulator.apis.calls import SimulatedApi
from demo.simulator.apis.evolution import EvolutionApi
from demo.simulator.apis.waha import WahaApi
from demo.simulator.apis.whapi import WhapiApi
from demo.simulator.apis.wppconnect import WppconnectApi
from demo.simulator.apis.wrapper import WrapperApi

APIS: Mapping[str, type[SimulatedApi]] = {
    "wrapper": WrapperApi,
    "wppconnect": WppconnectApi,
    "evolution": EvolutionApi,
    "waha": WahaApi,
    "whapi": WhapiApi,
}
