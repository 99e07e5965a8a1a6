BEGIN TRANSACTION;
CREATE TABLE chunks (
    id integer not null, doc , title , ordinal , text , start , end , heading , line_start , line_end , page ,
    embedded text not null, row text not null,
    born integer not null, died integer, primary key (id, born));
INSERT INTO "chunks" VALUES(1,'amber.md','Amber Pier',0,'The Amber Pier has 3 berths for visitors.',14,55,'Amber Pier',3,3,NULL,'86fe081ea079d3f9dd4a655970523541b392b2049714a9a836a6783b8611c428','06458a07b03f46b0bd19d22eef636ac7699ce2debf31850319ade123b652eb33',1,NULL);
INSERT INTO "chunks" VALUES(2,'birch.md','Birch Pier',0,'The Birch Pier has 4 berths for visitors.',14,55,'Birch Pier',3,3,NULL,'7f388dbba1aba9ae7410fe18fbe0899c9aefab7e8a901459176b08dbfb3685e9','81c8b76d70bb98ba371738c2a6eeb27d19d57b3972d3c37dd95c1ed00a092eb5',1,NULL);
INSERT INTO "chunks" VALUES(3,'copper.md','Copper Pier',0,'The Copper Pier has 5 berths for visitors.',15,57,'Copper Pier',3,3,NULL,'3c9cf2b65d5bbc04aa5f3321c79fe665715e966d6439385462aab979e72307bc','86e24a55dbf87edcee6174496a83b9e2b2e7f452972f91c16512e369b4a62d54',1,NULL);
CREATE TABLE documents (
    id text not null, sha256 text not null, fields text not null, raw_sha256 text not null, row text not null,
    born integer not null, died integer, raw text not null, primary key (id, born));
INSERT INTO "documents" VALUES('amber.md','a0a462d4950bf754bb086c7cfff548e5f2de5e21a3d340522aec351bd59f062f','{"media":"markdown","metadata":{},"source":"amber.md","source_sha256":"7e022cdaf4171a554663da58073138f94d494101910b848304ec9ad39506a0b9","title":"Amber Pier"}','7e022cdaf4171a554663da58073138f94d494101910b848304ec9ad39506a0b9','c26d4abca57015c0d1055bb01dbe88a78cad3ef4584e261a3deaa8f45769005b',1,NULL,'# Amber Pier

The Amber Pier has 3 berths for visitors.
');
INSERT INTO "documents" VALUES('birch.md','c04d869123b1881084be27dd2a074c1a4bebb29030a5fb6894fadab677cbf62a','{"media":"markdown","metadata":{},"source":"birch.md","source_sha256":"2fdbec2b8333adefd14efd895d5a08eb7fb149d9c5bba1a4df63d6fdf9a4dbd7","title":"Birch Pier"}','2fdbec2b8333adefd14efd895d5a08eb7fb149d9c5bba1a4df63d6fdf9a4dbd7','6640aff92b6144774b637a120e97340197d0ff9fe63a55c7b5444da3f47a6a48',1,NULL,'# Birch Pier

The Birch Pier has 4 berths for visitors.
');
INSERT INTO "documents" VALUES('copper.md','9fda44a20419c55505223a5fbd850c485fc7977c72d82fc7e754ca306ea24cb3','{"media":"markdown","metadata":{},"source":"copper.md","source_sha256":"0d09ff57538e54ce2a9dabe125720f131119a3c1a942e93cb87dc110c2a8ba56","title":"Copper Pier"}','0d09ff57538e54ce2a9dabe125720f131119a3c1a942e93cb87dc110c2a8ba56','7d1a992fd64aa363e34e0ff2e2e4405e2510577a35a95d5368b1e25376ad9097',1,NULL,'# Copper Pier

The Copper Pier has 5 berths for visitors.
');
CREATE TABLE generations (
    number integer primary key, next_id integer not null, text_sha256 text not null, facts text not null,
    row text not null);
INSERT INTO "generations" VALUES(1,4,'62c129c0ff78ae16dec8619577b62905c6d91c4045c99fb170f153e941e682ad','{"dimension":26,"embedder":"letters","fingerprint":"letters-1","settings":{"b":0.75,"fusion":"convex","k1":1.2,"lexical_weight":0.3,"max_tokens":200,"overlap":0.25,"pool":50,"store":"exact"}}','264cf0d4ecf74256e0ab3ad85d2a954f54db44dbf248f6cdbe9516af678a89c9');
CREATE INDEX chunks_of on chunks (doc);
COMMIT;
pragma user_version = 1;
