"""The simulated gateway's APIs, by the gateway type of the settings."""

from collections.abc import Mapping

from demo.simulator.apis.calls import SimulatedApi
from demo.simulator.apis.evolution import EvolutionApi
from demo.simulator.apis.gowa import GowaApi
from demo.simulator.apis.openwa import OpenwaApi
from demo.simulator.apis.waha import WahaApi
from demo.simulator.apis.whapi import WhapiApi
from demo.simulator.apis.wppconnect import WppconnectApi
from demo.simulator.apis.wrapper import WrapperApi
from demo.simulator.apis.wuzapi import WuzapiApi
from demo.simulator.apis.wwebjs_api import WwebjsApi

APIS: Mapping[str, type[SimulatedApi]] = {
    "wrapper": WrapperApi,
    "wppconnect": WppconnectApi,
    "evolution": EvolutionApi,
    "waha": WahaApi,
    "whapi": WhapiApi,
    "gowa": GowaApi,
    "openwa": OpenwaApi,
    "wuzapi": WuzapiApi,
    "wwebjs-api": WwebjsApi,
}
