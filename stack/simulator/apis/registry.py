"""Which APIs a simulated gateway can speak, by the type that the settings name."""

from collections.abc import Mapping

from stack.simulator.apis.calls import Api
from stack.simulator.apis.evolution import EvolutionApi
from stack.simulator.apis.waha import WahaApi
from stack.simulator.apis.wppconnect import WppconnectApi
from stack.simulator.apis.wrapper import WrapperApi

APIS: Mapping[str, type[Api]] = {
    "wrapper": WrapperApi,
    "wppconnect": WppconnectApi,
    "evolution": EvolutionApi,
    "waha": WahaApi,
}
