"""Common verbs by stem, and those that stand before another."""

from __future__ import annotations

from rag.text.words import stem

_VERB_TEXT = """
    is are was were be been being am has have had do does did can could will would shall should may
    might must cannot cost costs pay pays run runs ran open opens close closes start starts begin begins
    began end ends leave leaves left go goes went come comes came sail sails take takes took give gives
    gave get gets got make makes made hold holds held seat seats need needs require requires offer
    offers provide provides serve serves accept accepts include includes contain contains lie lies stand
    stands stay stays sell sells sold buy buys bought win wins won lose loses lost lead leads led write
    writes wrote know knows knew find finds found keep keeps kept say says said mean means meant work
    works live lives play plays become becomes became grow grows grew build builds built travel travels
    return returns arrive arrives depart departs last lasts apply applies allow allows use uses want
    wants like likes see sees saw show shows bring brings brought carry carries repair repairs teach
    teaches taught meet meets met weigh weighs measure measures receive receives send sends sent rise
    rises rose fall falls fell beat beats eat eats drink drinks sleep sleeps earn earns read reads speak
    speaks spoke store stores charge charges covers cover produce produces check checks clean cleans
    turn turns move moves call calls put puts set sets let lets feel feels felt think thinks thought
    eat eats ate hunt hunts grew lay lays laid hatch hatches fly flies flew swim swims swam sing sings sang
    catch catches caught choose chooses chose drive drove feed feeds fed fight fights fought hang hangs
    hide hides hid hit hits hurt kill kills lose add adds ask asks attend attends bear born belong belongs
    carry carried collect consist consists depend depends describe describes design designs develop
    develops die dies died discover discovers dig digs draw draws drew employ employs enter enters explain
    explains export exports import imports follow follows found founded gain gains happen happens hear
    heard help helps hire hires hold hunt inherit inherits invent invents join joins load loads marry
    marries migrate migrates occur occurs own owns pack packs pass passes perform performs
    prefer prefers protect protects pull pulls push pushes raise raises rebuild rebuilt recommend
    recommends reduce reduces repay rule rules shine shines shoot shoots
    smell sort sorts spend spends spent spread spreads steal stole stretch stretches strike struck support
    supports surrender surrenders survive survives swap translate translates trade trades visit wait waits
    wash washes watch watches wear wears wore weave weaves win withdraw withdraws withdrew
    bake bakes cook cooks forward forwards refuse refuses inspect inspects paint paints print
    prints award awards collect collects manage manages run organise organises organize organizes handle
    handles deliver delivers refund refunds borrow borrows lend lends replace replaces remove removes
    command commands publish publishes introduce introduces restore restores study studies visit visits
    rent rents advise advises treat treats drive drives ship ships control controls
    contact contacts answer answers approve approves reject rejects grant grants cause causes remain
    remains receive reach reaches connect connects expire expires delete deletes create creates es
    sale salen llega llegan muestra muestran habla hablan come comen lleva llevan recibe reciben trabaja
    trabajan vive viven nace nació murió fundó ganó perdió escribió construyó repara reparan gibt steht
    stehen hängt hängen wohnt wohnen arbeitet arbeiten verkauft kauft kaufen isst essen spricht sprechen
    repariert reparieren unterrichtet unterrichten kommt kommen geht gehen macht machen
    son fue era está están tiene tienen puede pueden paga pagan cuesta cuestan abre abren cierra cierran
    vende venden ofrece ofrecen dura duran admite admiten necesita necesitan prepara preparan dirige
    dirigen enseña enseñan empieza empiezan termina terminan ist sind war waren hat haben kann können wird
    werden kostet kosten öffnet öffnen schließt schließen zahlt zahlen leitet leiten dauert dauern beginnt
    beginnen endet enden muss müssen darf dürfen braucht brauchen bringt bringen verkauft verkaufen
    liegt liegen gilt gelten erlaubt verboten geöffnet geschlossen fährt fahren bietet bieten
"""
VERBS = frozenset(map(stem, _VERB_TEXT.split()))
"""Stems of common verbs."""
AUXILIARIES = frozenset(
    map(
        stem,
        [
            "is",
            "are",
            "was",
            "were",
            "be",
            "been",
            "being",
            "am",
            "has",
            "have",
            "had",
            "do",
            "does",
            "did",
            "can",
            "could",
            "will",
            "would",
            "shall",
            "should",
            "may",
            "might",
            "must",
            "cannot",
            "ist",
            "sind",
            "war",
            "waren",
            "hat",
            "haben",
            "kann",
            "können",
            "wird",
            "werden",
            "muss",
            "müssen",
            "darf",
            "dürfen",
            "es",
            "son",
            "fue",
            "puede",
            "pueden",
        ],
    )
)
"""Stems of verbs that stand before another."""
