"""Statements made of a passage's words that it does not bear out, and true ones in other words, from several trades."""

from __future__ import annotations

import pytest

import rag
from rag.grounding.citations import supporting_passages
from rag.types import Chunk, Hit

POOL = (
    "Adults pay 12 euros. Children pay 6 euros. The pool opens at 7:30 and closes at 21:00. Towels are rented for 3 euros. "
    "Caps are required in the deep basin. The sauna is closed on Mondays."
)
WORKSHOP = (
    "The workshop lends tools for 3 days. A deposit of at least 20 euros is kept. Anna Berg repairs the bicycles. "
    "Jonas Lind teaches pottery after lunch. The kiln must not be opened before it has cooled. Glazes cost more than clay."
)
CLINIC = (
    "Dr. Mara Olsen sees patients on Tuesday. Dr. Pavel Novak sees patients on Thursday. Take 2 tablets every 8 hours. "
    "Do not take more than 6 tablets in a day. Results arrive within 5 days. Visitors may stay until 20:00. "
    "The old wing is north of the garden."
)
FARM = (
    "The upper field grows barley. The lower field grows beans. Sow beans before the last frost in May. "
    "Each hen lays up to 6 eggs a week. The well is 40 metres deep. Sheep are sheared in summer. "
    "The tractor may not be used without a permit. Lena founded the farm in 1987."
)
SERVER = (
    "Backups are kept for 30 days. Uploads may be up to 25 MB. The cache is enabled by default. "
    "The scheduler starts after the database. Passwords need at least 12 characters. "
    "Admins can delete projects, but editors cannot. The free plan has 2 seats and the team plan has 10 seats."
)
PRESS = (
    "The matte paper is cheaper than the glossy paper. Orders over 100 euros ship free. Proofs are sent by email. "
    "The bindery beat the foundry in 2019. Posters are printed on Wednesdays. "
    "Express orders take 2 days, normal orders 6 days. "
    "Refunds are possible before printing starts."
)
FERRY = (
    "The Aurora sails from Bergholm to Sandvik every Monday. The Polaris sails from Sandvik to Lindeskar "
    "on Fridays. Bicycles travel free. Cars must be booked at least 2 days before departure. Dogs are "
    "allowed on deck but not in the cabins. The crossing takes 90 minutes in summer and 2 hours in "
    "winter. Captain Ingrid Dahl commands the Aurora. Tickets can be refunded until 24 hours before "
    "departure. The kiosk sells coffee, and the bar sells beer. It opens at noon."
)
LIBRARY = (
    "The reading room is open from 9 to 17 on weekdays. Novels may be borrowed for up to 4 weeks, films "
    "for 7 days and maps for 2 days. Late books cost 0.50 euros a day. Readers under 16 need the "
    "signature of a parent. Nora Feld leads the book club, and Karl Oster runs the archive. The archive "
    "lies in the basement; the cafe is on the roof. Only members may reserve study cabins. New members "
    "receive a card, which must be renewed every 2 years. The library lends laptops to students. Printing "
    "is not included in the fee."
)
GARAGE = (
    "An oil change costs 80 euros and takes one hour. A brake check costs 35 euros. Winter tyres should "
    "be fitted before November and removed no earlier than April. Tyre pressure must be between 2.2 and "
    "2.6 bar. Batteries are replaced free of charge within the first 3 years. Thomas Weil inspects "
    "engines. Sara Kim paints doors. The garage accepts cards but refuses cheques. Customers bring the "
    "car in the morning and collect it in the evening. The Model T2 has a petrol engine, whereas the "
    "Model E4 has an electric motor. Courtesy cars are available except on Saturdays. Repairs over 500 "
    "euros need written consent."
)
SCHOOL = (
    "Registration for the autumn term opens on 3 March and ends on 28 April. Classes have at most 14 "
    "pupils. Ms Rivera teaches French in room 12. Mr Adeyemi teaches chemistry in room 20. Homework is "
    "optional in the first week. Pupils must wear goggles in the laboratory. Lunch is served from 12:00 "
    "to 13:15. Exams are held in June, and results are published in July. The school awards scholarships "
    "to talented musicians. Parents may visit lessons on Wednesdays only. Attendance rose from 88 percent "
    "to 94 percent. The gym is indoors, the running track outdoors."
)
MUSEUM = (
    "Entry is 9 euros for adults, 5 euros for students and free for children under 6. The east wing shows "
    "Roman coins. The west wing shows Celtic jewellery. Photography without flash is permitted. The "
    "painter Elsa Brandt was born in Graz in 1881 and died in Trieste in 1944. She studied under Hugo "
    "Stern. Guided tours start at 11 and 15 and last 50 minutes. The museum was built by the Keller "
    "company in 1902 and restored by Arno and Sons in 1996. Groups of more than 10 people must register "
    "by Thursday. Audio guides are included in the ticket. The lift is out of service until May."
)
HOTEL = (
    "Check-in is from 15:00 and check-out is by 11:00. Breakfast is served until 10:30 on weekdays and "
    "until 11:30 on Sundays. Single rooms have a shower; double rooms have a bath. Guests may cancel free "
    "of charge up to 48 hours before arrival. Towels are changed daily and sheets twice a week. The spa "
    "is reserved for adults. Parking costs 12 euros per night and must be booked in advance. The Blue "
    "Suite has a balcony, the Red Suite a terrace. The shuttle from the airport to the hotel runs every "
    "30 minutes, and the shuttle back runs every hour. Smoking is forbidden indoors but allowed in the "
    "courtyard."
)
SHOP = (
    "Orders placed before noon ship on the same day. Delivery to Norway takes 5 days and delivery to "
    "Iceland takes 9 days. Opened packs cannot be returned. Returns are accepted within 30 days of "
    "purchase. Gift cards are valid for 2 years and cannot be exchanged for cash. The Lumo lamp runs on "
    "batteries and the Nova lamp runs on mains power. The Lumo weighs 400 grams, the Nova 900 grams. "
    "Helena Vos designed the Lumo, and Piet Baan designed the Nova. Discounts apply to members, not to "
    "resellers. The warehouse in Gent packs lamps; the one in Lille packs furniture. Prices rose in March "
    "and fell in September."
)

FALSE = {
    FERRY: """
        The Aurora sails from Sandvik to Bergholm every Monday.
        The Polaris sails from Lindeskar to Sandvik.
        The Aurora sails on Fridays.
        The Polaris sails from Bergholm to Sandvik.
        Cars travel free.
        Cars must be booked at least 2 days after departure.
        Dogs are allowed in the cabins.
        The crossing takes 2 hours in summer.
        Captain Ingrid Dahl commands the Polaris.
        Captain Ingrid Holm commands the Aurora.
        Tickets cannot be refunded until 24 hours before departure.
        The bar sells coffee.
        The bar opens at midnight.
        the polaris sails on saturdays.
        Tickets can be exchanged until 24 hours before departure.
        Cars are allowed on deck.
        The Polaris takes 90 minutes in summer.
    """,
    LIBRARY: """
        The reading room is open from 9 to 17 on weekends.
        The reading room is open until 9 on weekdays.
        Novels may be borrowed for up to 7 days.
        Maps may be borrowed for 7 days.
        Novels may be borrowed for more than 4 weeks.
        Readers over 16 need the signature of a parent.
        Readers under 16 need the signature of a teacher.
        Nora Feld runs the archive.
        The archive lies on the roof.
        The archive is on the roof.
        Everyone may reserve study cabins.
        The card must be renewed every 2 months.
        The library lends laptops to teachers.
        Printing is included in the fee.
        Readers under 16 may reserve study cabins.
    """,
    GARAGE: """
        An oil change costs 35 euros.
        A brake check takes one hour.
        Winter tyres should be fitted after November.
        Winter tyres should be removed before April.
        Winter tyres should be removed no later than April.
        Tyre pressure must be above 2.6 bar.
        Tyre pressure must be at least 2.6 bar.
        Batteries are repaired free of charge within the first 3 years.
        Sara Kim inspects engines.
        Engines are inspected by Sara Kim.
        The garage accepts cheques.
        Customers collect the car in the morning.
        The Model T2 has an electric motor.
        Courtesy cars are available on Saturdays.
        Courtesy cars are available except on Sundays.
        Repairs over 500 euros need verbal consent.
        Brake checks over 500 euros need written consent.
    """,
    SCHOOL: """
        Registration for the autumn term opens on 28 April.
        Registration for the spring term opens on 3 March.
        Classes have at least 14 pupils.
        Classes have exactly 14 pupils.
        Ms Rivera teaches chemistry.
        Mr Adeyemi teaches French.
        Ms Romero teaches French in room 12.
        Homework is compulsory in the first week.
        Pupils must wear goggles in the gym.
        Pupils may not wear goggles in the laboratory.
        Lunch is served until 12:00.
        Results are published in June.
        The school awards scholarships to talented athletes.
        Parents may visit lessons except on Wednesdays.
        Attendance fell from 94 percent to 88 percent.
        Attendance fell to 94 percent.
        The gym is outdoors.
        Homework is served from 12:00 to 13:15.
    """,
    MUSEUM: """
        Entry is 5 euros for adults.
        Entry is free for students.
        Entry is free for children over 6.
        The west wing shows Roman coins.
        The east wing shows Greek coins.
        Photography without flash is forbidden.
        The painter Elsa Brandt died in Graz.
        Elsa Brandt died in 1881.
        Hugo Stern was born in Graz.
        Elsa Brandt was born in Linz in 1881.
        Guided tours last 15 minutes.
        The museum was restored by the Keller company.
        The museum was built in 1996.
        Groups of fewer than 10 people must register by Thursday.
        Groups of more than 10 people must register by Tuesday.
        Audio guides are excluded from the ticket.
        The lift is in service until May.
        The lift is out of service until June.
    """,
    HOTEL: """
        Check-in is by 11:00.
        Check-in is until 15:00.
        Breakfast is served until 10:30 on Sundays.
        Single rooms have a bath.
        Guests may cancel free of charge up to 48 hours after arrival.
        The spa is reserved for children.
        Parking costs 12 euros per week.
        The Blue Suite has a terrace.
        The shuttle from the airport to the hotel runs every hour.
        Smoking is allowed indoors.
        Parking must not be booked in advance.
        The Green Suite has a balcony.
    """,
    SHOP: """
        Orders placed after noon ship on the same day.
        Delivery to Iceland takes 5 days.
        Opened packs can be returned.
        Returns are accepted after 30 days of purchase.
        Gift cards can be exchanged for cash.
        Gift cards are valid for 30 days.
        The Nova lamp runs on batteries.
        The Nova weighs 400 grams.
        Piet Baan designed the Lumo.
        Helena Baan designed the Lumo.
        Discounts do not apply to members.
        The warehouse in Lille packs lamps.
        Prices rose in September.
        Members cannot be returned.
    """,
    POOL: """
        Adults pay 6 euros.|Children pay 12 euros.|The price for adults is 6 euros.
        6 euros is what adults pay.
        Adults pay 12 dollars.|The pool opens at 21:00.|The pool closes at 7:30.|The pool opens at 7:30 pm.
        Towels are rented for 6 euros.|Caps are not required in the deep basin.
        Caps are required in the shallow basin.
        The sauna is open on Mondays.|The sauna is closed on Sundays.|Adults pay at most 12 euros.
        Children pay sixteen euros.
    """,
    WORKSHOP: """
        The workshop lends tools for 3 hours.|Tools are lent for 3 weeks.
        A deposit of at most 20 euros is kept.
        A deposit of up to 20 euros is kept.|Jonas Lind repairs the bicycles.
        Anna Berg teaches pottery after lunch.
        Jonas Lind teaches pottery before lunch.|The kiln must be opened before it has cooled.
        Peter Berg repairs the bicycles.
        Glazes cost less than clay.|The workshop lends tools for 20 days.|The workshop repairs the bicycles.
    """,
    CLINIC: """
        Dr. Mara Olsen sees patients on Thursday.|Dr. Pavel Novak sees patients on Tuesday.
        Take 8 tablets every 2 hours.
        Take 2 tablets every 8 days.|You may take more than 6 tablets in a day.|Results arrive within 5 weeks.
        Results arrive after 5 days.|Visitors may stay from 20:00.|The old wing is south of the garden.
        The new wing is north of the garden.|Take 6 tablets every 8 hours.|Visitors may stay until 8 am.
    """,
    FARM: """
        The upper field grows beans.|The lower field grows barley.|Sow beans after the last frost in May.
        Sow beans before the last frost in June.|Each hen lays at least 6 eggs a week.
        Each hen lays up to 6 eggs a month.
        The well is 40 feet deep.|Sheep are sheared in winter.|The tractor may be used without a permit.
        Lena founded the farm in 1978.|Lars founded the farm in 1987.|Lena sold the farm in 1987.
    """,
    SERVER: """
        Backups are kept for 30 hours.|Backups are kept for 25 days.|Uploads may be up to 25 GB.
        Uploads must be at least 25 MB.
        The cache is disabled by default.|The cache is not enabled by default.
        The scheduler starts before the database.
        The database starts after the scheduler.|Passwords need at most 12 characters.
        Editors can delete projects.
        The free plan has 10 seats.|The team plan has 2 seats.
    """,
    PRESS: """
        The glossy paper is cheaper than the matte paper.
        The matte paper is more expensive than the glossy paper.
        Orders under 100 euros ship free.|Orders over 100 dollars ship free.
        The foundry beat the bindery in 2019.
        Posters are printed on Thursdays.|Express orders take 6 days.|Normal orders take 2 days.
        Express orders take 2 hours.
        Refunds are possible after printing starts.|Refunds are impossible before printing starts.
    """,
}
TRUE = {
    FERRY: """
        Every Monday the Aurora sails from Bergholm to Sandvik.
        The Aurora sails to Sandvik from Bergholm.
        Bikes travel free of charge.
        Dogs are not allowed in the cabins.
        In winter the crossing takes two hours.
        The Aurora is commanded by Captain Ingrid Dahl.
        Coffee is sold by the kiosk.
        The bar opens at noon.
    """,
    LIBRARY: """
        You can borrow novels for up to four weeks.
        Films may be borrowed for a week.
        Readers under 16 need a parent's signature.
        Karl Oster runs the archive.
        The cafe is on the roof.
        Study cabins may be reserved by members only.
        Laptops are lent to students.
    """,
    GARAGE: """
        An oil change costs 80 euros.
        A brake check costs €35.
        Tyre pressure must be at least 2.2 bar.
        Batteries are replaced for free within the first three years.
        Doors are painted by Sara Kim.
        The garage accepts cards.
        Customers collect the car in the evening.
        Courtesy cars are not available on Saturdays.
    """,
    SCHOOL: """
        Registration for the autumn term ends on 28 April.
        Classes have up to 14 pupils.
        French is taught by Ms Rivera in room 12.
        In the first week homework is optional.
        Lunch is served until 13:15.
        Results are published in July.
        Parents may only visit lessons on Wednesdays.
        Attendance increased from 88% to 94%.
        Scholarships are awarded to talented musicians by the school.
    """,
    MUSEUM: """
        Students pay 5 euros.
        Children under 6 enter for free.
        Roman coins are shown in the east wing.
        Photography is allowed without flash.
        Elsa Brandt died in Trieste in 1944.
        Tours last 50 minutes.
        Groups of over 10 people must register by Thursday.
        Until May the lift is out of service.
    """,
    HOTEL: """
        Check-in is from 3 pm.
        On Sundays breakfast is served until 11:30.
        Double rooms have a bath.
        Towels are changed every day.
        Parking must be reserved in advance.
        The Red Suite has a terrace.
        Every 30 minutes the shuttle runs from the airport to the hotel.
        Smoking is not allowed indoors.
    """,
    SHOP: """
        Delivery to Norway takes five days.
        Gift cards are valid for two years.
        The Nova lamp runs on mains power.
        The Lumo weighs 400 grams.
        Helena Vos designed the Lumo.
        Discounts do not apply to resellers.
        In March prices rose.
        You cannot return opened packs.
    """,
    POOL: """
        Children pay six euros.|The price for adults is 12 euros.|Kids pay €6.|The pool opens at 7.30 a.m.
        The pool closes at 9 pm.
        You must wear... caps are required in the deep basin.|Towels can be rented for three euros.
        On Mondays the sauna is closed.
        Adults pay 12 euros and children pay 6 euros.
    """,
    WORKSHOP: """
        Tools are lent for three days.|Bicycles are repaired by Anna Berg.
        After lunch, Jonas Lind teaches pottery.
        Pottery is taught by Jonas Lind after lunch.|The deposit is at least 20 euros.
        According to the document, Anna Berg repairs the bicycles.
        A minimum deposit of 20 euros is kept.
    """,
    CLINIC: """
        On Tuesday Dr. Mara Olsen sees patients.|Patients are seen by Dr. Pavel Novak on Thursday.
        Take two tablets every eight hours.
        Visitors may stay until 8 pm.|Take 2 tablets every 8 h.|Results arrive within five days.
        The garden is south of the old wing.
    """,
    FARM: """
        Barley grows in the upper field.|Each hen lays at most six eggs a week.|The well is 40 m deep.
        The farm was founded by Lena in 1987.
        In summer, sheep are sheared.|In 1987 Lena founded the farm.|Each hen lays no more than 6 eggs a week.
    """,
    SERVER: """
        Backups are stored for thirty days.|Uploads may be at most 25 megabytes.
        By default, the cache is enabled.
        The database starts before the scheduler.|Passwords need no fewer than 12 characters.
        Editors cannot delete projects.
        The free plan has two seats.|Admins can delete projects.|The team plan has ten seats.
    """,
    PRESS: """
        Orders of more than 100 euros ship free.|Proofs are sent via email.|On Wednesdays posters are printed.
        Express orders take two days.|In 2019 the bindery beat the foundry.
        Before printing starts, refunds are possible.
        Normal orders take six days.
    """,
}
NOT_YET = {
    "The garden is south of the old wing.",
    "Barley grows in the upper field.",
    "You must wear... caps are required in the deep basin.",
}
"""True, and not recognised: a direction the other way round, a verb used both ways, and an unfinished beginning."""


def _pairs(groups: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (passage, statement.strip())
        for passage, lines in groups.items()
        for line in lines.strip().splitlines()
        for statement in line.split("|")
    ]


def _support(passage: str, statement: str) -> set[str]:
    hit = Hit(Chunk(0, "a.md", "", 0, passage, 0, len(passage)), 1.0, 1.0, 1.0)
    return {citation.support for citation in rag.cite(statement, [hit])}


def test_there_are_enough_statements() -> None:
    assert len(_pairs(FALSE)) >= 60
    assert len([pair for pair in _pairs(TRUE) if pair[1] not in NOT_YET]) >= 40


@pytest.mark.parametrize(("passage", "statement"), _pairs(FALSE))
def test_false_statement_is_not_supported(passage: str, statement: str) -> None:
    assert "supported" not in _support(passage, statement)


@pytest.mark.parametrize(("passage", "statement"), _pairs(TRUE))
def test_true_statement_is_supported(passage: str, statement: str) -> None:
    assert (_support(passage, statement) == {"supported"}) is (statement not in NOT_YET)


RECORD = "vessel: MV Sandpiper; built: 2019; passengers: 214; top_speed: 33 knots; captain: Lucia Ferrant"
PARCEL = (
    "parcel: Plover parcel; max_weight: 6 kilograms; price: 5.85 euros; deposit: 20 euros; delivery: 2 days"
)


@pytest.mark.parametrize(
    ("row", "statement", "level"),
    [
        (RECORD, "MV Sandpiper has a top speed of 33 knots.", "supported"),
        (RECORD, "MV Sandpiper carries 214 passengers.", "supported"),
        (RECORD, "MV Sandpiper was built in 2019.", "supported"),
        (RECORD, "The captain of MV Sandpiper is Lucia Ferrant.", "supported"),
        (RECORD, "MV Sandpiper was built in 2011.", "unsupported"),
        (RECORD, "MV Heron has a top speed of 33 knots.", "unsupported"),
        (RECORD, "MV Sandpiper has a top speed of 214 knots.", "unsupported"),
        (RECORD, "MV Sandpiper does not carry 214 passengers.", "unsupported"),
        (PARCEL, "A Plover parcel may weigh up to 6 kilograms.", "supported"),
        (PARCEL, "A Plover parcel costs 5.85 euros.", "supported"),
        (PARCEL, "The price of a Plover parcel is 20 euros.", "unsupported"),
        (PARCEL, "A Plover parcel takes 2 hours.", "unsupported"),
    ],
)
def test_rows_of_tables_support_what_their_fields_say(row: str, statement: str, level: str) -> None:
    chunk = Chunk(1, "table.csv", "Table", 0, row, 0, len(row))
    assert supporting_passages(statement, [chunk])[0] == level
