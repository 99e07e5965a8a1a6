"""Units of measure, money and time: every way of writing one, its dimension, and its size in the dimension's base."""

from __future__ import annotations

from decimal import Decimal

_TABLE = """
    time second 1: s sec secs second seconds segundo segundos sekunde sekunden secondes
    time minute 60: min mins minute minutes minuto minutos minuten
    time hour 3600: h hr hrs hour hours hora horas stunde stunden std heure heures
    time day 86400: d day days día días tag tage tagen jour jours
    time night 86400: night nights noche noches nacht nächte
    time week 604800: wk wks week weeks semana semanas woche wochen semaine semaines
    time fortnight 1209600: fortnight fortnights
    months month 1: month months mes meses monat monate monaten mois
    months quarter 3: quarters
    months year 12: yr yrs year years año años jahr jahre jahren ans
    months decade 120: decade decades década décadas
    months century 1200: century centuries siglo siglos
    length millimetre 0.001: mm millimetre millimetres millimeter millimeters
    length centimetre 0.01: cm centimetre centimetres centimeter centimeters zentimeter
    length metre 1: m metre metres meter meters metern metro metros
    length kilometre 1000: km kms kilometre kilometres kilometer kilometers kilómetro kilómetros
    length inch 0.0254: in inch inches ″
    length foot 0.3048: ft foot feet
    length yard 0.9144: yd yard yards
    length mile 1609.344: mi mile miles milla millas
    length nautical_mile 1852: nm
    area square_metre 1: m² sqm m2
    area square_kilometre 1000000: km² km2
    area square_foot 0.09290304: ft² ft2 sqft
    area acre 4046.8564: acre acres
    area hectare 10000: ha hectare hectares
    mass milligram 0.000001: mg milligram milligrams
    mass gram 0.001: g gram grams gramme grammes gramm gramos
    mass kilogram 1: kg kgs kilo kilos kilogram kilograms kilogramm
    mass tonne 1000: t ton tons tonne tonnes tonelada toneladas
    mass ounce 0.0283495: oz ounce ounces
    mass pound 0.45359237: lb lbs
    mass stone 6.35029318: stone
    volume millilitre 0.001: ml millilitre millilitres milliliter milliliters
    volume centilitre 0.01: cl centilitre centilitres
    volume litre 1: l litre litres liter liters litro litros
    volume cubic_metre 1000: m³ m3
    volume gallon 0: gal gallon gallons
    volume pint 0: pint pints
    data byte 1: b byte bytes
    data kilobyte 1000: kb kib kilobyte kilobytes
    data megabyte 1000000: mb mib megabyte megabytes
    data gigabyte 1000000000: gb gib gigabyte gigabytes
    data terabyte 1000000000000: tb tib terabyte terabytes
    rate megabit 1: mbit mbps megabit megabits
    rate gigabit 1000: gbit gbps gigabit gigabits
    euro euro 1: € eur euro euros
    dollar dollar 1: $ usd dollar dollars dólar dólares
    sterling sterling 1: £ gbp quid
    yen yen 1: ¥ jpy yen
    franc franc 1: chf franc francs franken
    krone krone 1: kr krone kroner krona kronor sek nok dkk
    rupee rupee 1: ₹ inr rupee rupees
    cent cent 1: ¢ cent cents
    cent pence 1: pence penny p
    ratio percent 0.01: % percent pct prozent procent
    ratio share 1: /
    points point 1: points
    angle degree 1: ° degree degrees
    temperature celsius 0: °c celsius centigrade
    temperature fahrenheit 0: °f fahrenheit
    points percentage_point 1: pp
    power watt 1: w watt watts
    power kilowatt 1000: kw kilowatt kilowatts
    power megawatt 1000000: mw megawatt megawatts
    power horsepower 0: hp horsepower
    energy watt_hour 1: wh
    energy kilowatt_hour 1000: kwh
    energy megawatt_hour 1000000: mwh
    energy gigawatt_hour 1000000000: gwh
    energy calorie 0: kcal calorie calories
    energy joule 0: kj joule joules
    voltage volt 1: v volt volts
    current ampere 1: amp amps ampere amperes
    frequency hertz 1: hz hertz
    frequency kilohertz 1000: khz
    frequency megahertz 1000000: mhz
    frequency gigahertz 1000000000: ghz
    speed mph 1.609344: mph
    speed kmh 1: km/h kmh kph
    speed knot 1.852: knot knots kn kt
    loudness decibel 1: db decibel decibels
    pressure bar 1: bar bars
    pressure pascal 0: pa psi hpa
    times times 1: time times
"""
_SIZES: dict[str, tuple[str, Decimal]] = {}
UNITS: dict[str, str] = {}
"""The one name of a unit by each way of writing it, in lower case."""
for _line in _TABLE.strip().splitlines():
    _head, _, _forms = _line.partition(":")
    _dimension, _name, _size = _head.split()
    _SIZES[_name] = _dimension, Decimal(_size)
    UNITS |= dict.fromkeys(_forms.split(), _name)
del UNITS["/"]
PHRASES = {
    "square metre": "square_metre",
    "square meter": "square_metre",
    "square kilometre": "square_kilometre",
    "square kilometer": "square_kilometre",
    "square feet": "square_foot",
    "square foot": "square_foot",
    "cubic metre": "cubic_metre",
    "cubic meter": "cubic_metre",
    "per cent": "percent",
    "por ciento": "percent",
    "pour cent": "percent",
    "percentage point": "percentage_point",
    "nautical mile": "nautical_mile",
    "degrees celsius": "celsius",
    "degrees fahrenheit": "fahrenheit",
    "degrees c": "celsius",
    "degrees f": "fahrenheit",
    "kilometres per hour": "kmh",
    "kilometers per hour": "kmh",
    "kilometres an hour": "kmh",
    "miles per hour": "mph",
    "miles an hour": "mph",
    "megawatt hour": "megawatt_hour",
    "gigawatt hour": "gigawatt_hour",
    "kilowatt hour": "kilowatt_hour",
    "kilowatt-hour": "kilowatt_hour",
    "pounds sterling": "sterling",
    "swiss franc": "franc",
}
"""Units of two and three words, in the singular where the plural only adds an s."""
MONEY = frozenset(("euro", "dollar", "sterling", "yen", "franc", "krone", "rupee", "cent", "pence"))
PERIODS = frozenset(name for name, (dimension, _) in _SIZES.items() if dimension in ("time", "months"))


def dimension_of(unit: str) -> str:
    """Return the dimension of a unit, the unit itself where the table does not have it."""
    return _SIZES.get(unit, (unit, Decimal(0)))[0]


def size_of(unit: str) -> Decimal:
    """Return how many of its dimension's base a unit is; 0 for one that is not converted."""
    return _SIZES.get(unit, ("", Decimal(0)))[1]
