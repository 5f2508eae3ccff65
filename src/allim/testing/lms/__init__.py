"""Fake learning management systems on the wire: `kvca.FakeKvca` and `moodle.FakeMoodle`.

async with FakeKvca() as lms:
    lms.add_course(303, 447, "파이썬 입문")
    lms.enrol(447, "kim01", userName="김민수", status="DS")
    ... sync against lms.environment() ...
    lms.change(447, "kim01", status="GC", gc_date="2026-03-02 10:00:00")
    lms.fail("/api/course/classStatusAll", Fault.status(500), times=None, where={"courseid": 447})
    ... sync again ...
"""
