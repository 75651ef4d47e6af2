//! Bytes as what an agent asks a node and is answered: what is read says the same when it is sent on.
#![no_main]

use bytes::Bytes;
use esker_head::words;
use esker_proto::internal as wire;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let data = Bytes::copy_from_slice(data);
    match kind % 5 {
        0 => question(data),
        1 => answer(data),
        2 => call(data),
        3 => appended(data),
        _ => job(data),
    }
});

fn question(data: Bytes) {
    let Ok(asked) = wire::Question::decode(data) else {
        return;
    };
    let Ok((seen, asked)) = words::read_question(asked) else {
        return;
    };
    let again = words::question(seen, &asked).expect("a command that was read can be written");
    assert_eq!(words::read_question(again), Ok((seen, asked)));
}

fn answer(data: Bytes) {
    let Ok(told) = wire::Answer::decode(data) else {
        return;
    };
    let Ok((mark, reply)) = words::read_answer(told) else {
        return;
    };
    let again = words::read_answer(words::answer(mark, reply.clone()));
    assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, ()>((mark, reply))));
}

fn call(data: Bytes) {
    let Ok(called) = wire::AppendCall::decode(data) else {
        return;
    };
    let Ok(called) = words::read_call(called) else {
        return;
    };
    let again = match called.clone() {
        words::Call::Beginning(begins) => words::beginning(begins),
        words::Call::Append(append) => words::append_call(append),
    };
    assert_eq!(words::read_call(again), Ok(called));
}

fn appended(data: Bytes) {
    let Ok(told) = wire::AppendAnswers::decode(data) else {
        return;
    };
    for told in told.answers {
        let number = told.number;
        let Ok(outcome) = words::read_append_answer(told) else {
            continue;
        };
        let again = words::append_answer(number, outcome.clone());
        assert_eq!(words::read_append_answer(again), Ok(outcome));
    }
}

fn job(data: Bytes) {
    let Ok(job) = words::read_flush_job(data) else {
        return;
    };
    let again = words::flush_job(job.clone()).expect("its parts belong together");
    let again = words::read_flush_job(again).expect("it was just written");
    assert_eq!(format!("{again:?}"), format!("{job:?}"));
}
